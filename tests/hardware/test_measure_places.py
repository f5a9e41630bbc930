import contextlib
import io
import os
import signal
import sys
import tarfile
from importlib.metadata import distributions
from pathlib import Path
from typing import Any

import pytest
from measure_fixtures import JOB, write_net

from hwsearch.errors import HostError, UserError
from hwsearch.hardware.measure.places import LocalPlace, parse_place
from hwsearch.hardware.measure.process import exit_reason, started
from hwsearch.hardware.measure.ssh import FOLDER, SshPlace, connection_trouble, packed


def script(path: Path, text: str) -> str:
    path.write_text(text)
    path.chmod(0o755)
    return str(path)


# --- what users write


def test_this_machine_is_called_host_or_cuda() -> None:
    assert parse_place("host") == LocalPlace()
    assert parse_place("cuda") == LocalPlace(on_gpu=True)
    assert parse_place("host").default_runtime == "onnxruntime"
    assert parse_place("cuda").default_runtime == "onnxruntime-cuda"
    assert parse_place("host", python="python3.8") == LocalPlace(python="python3.8")


@pytest.mark.parametrize(
    ("text", "host", "user", "port"),
    [
        ("ssh://jetson", "jetson", None, None),
        ("ssh://me@board.local", "board.local", "me", None),
        ("ssh://me@192.168.0.7:2222", "192.168.0.7", "me", 2222),
        ("ssh://[fe80::1%eth0]:22", "fe80::1%eth0", None, 22),
        ("ssh://me@[::1]", "::1", "me", None),
    ],
)
def test_an_address_is_read_and_written_alike(
    text: str, host: str, user: str | None, port: int | None
) -> None:
    place = parse_place(text)
    assert place == SshPlace(host=host, user=user, port=port)
    assert place.name == text
    assert place.default_runtime == "onnxruntime"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "place '' is none that can be measured on; give host, cuda or ssh://"),
        ("jetson", "place 'jetson' is none that can be measured on"),
        ("HOST", "place 'HOST' is none"),
        ("ssh:jetson", "is none that can be measured on"),
        ("http://jetson", "is none that can be measured on"),
        ("ssh://", "'' is not the name or address of a host"),
        ("ssh://me@", "'' is not the name or address of a host"),
        ("ssh://@host", "'' is not the name of a user"),
        ("ssh://host:", "port '' is not a number from 1 to 65535"),
        ("ssh://host:ssh", "port 'ssh' is not a number"),
        ("ssh://host:0", "port '0' is not a number from 1 to 65535"),
        ("ssh://host:99999", "port '99999' is not a number from 1 to 65535"),
        ("ssh://host/folder", "is none that can be measured on"),
        ("ssh://-oProxyCommand=x", "'-oProxyCommand=x' is not the name or address of a host"),
        ("ssh://-l@host", "'-l' is not the name of a user"),
        ("ssh://ho st", "'ho st' is not the name or address of a host"),
    ],
)
def test_other_places_are_refused(text: str, message: str) -> None:
    with pytest.raises(UserError) as caught:
        parse_place(text)
    assert message in str(caught.value)
    assert "ssh://[user@]host[:port]" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_password_is_refused_and_not_repeated() -> None:
    with pytest.raises(UserError, match="takes no password; set up a key") as caught:
        parse_place("ssh://me:secret@host")
    assert "secret" not in str(caught.value)


def test_options_of_ssh_for_this_machine_are_refused() -> None:
    with pytest.raises(UserError, match="place 'host' is this machine and takes no options"):
        parse_place("host", ssh_options=("-v",))


# --- this machine


def events(place: LocalPlace, files: dict[str, Path], **changes: object) -> list[dict[str, Any]]:
    return list(place.run({**JOB, **changes}, files))


def test_a_job_gives_events_in_order(tmp_path: Path) -> None:
    files = {"a b": write_net(tmp_path / "a.onnx")}
    seen = events(LocalPlace(), files, anchor="a b")
    kinds = [event["event"] for event in seen]
    assert kinds == ["start", "round", "round", "anchor", "net", "done"]
    assert {event["id"] for event in seen[1:5]} == {"a b"}


def test_an_interpreter_that_is_missing_is_named() -> None:
    with pytest.raises(HostError, match=r"'/no/python' cannot be started \(No such file") as caught:
        events(LocalPlace(python="/no/python"), {})
    assert caught.value.exit_code == 3


def test_an_interpreter_without_onnxruntime_is_told_what_to_install(tmp_path: Path) -> None:
    bare = script(tmp_path / "bare", f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    with pytest.raises(HostError, match=r"host: .* cannot import numpy; install onnxruntime for"):
        events(LocalPlace(python=bare), {})


def test_more_threads_than_cores_are_refused() -> None:
    with pytest.raises(HostError, match="host: 4096 threads were asked for, but"):
        events(LocalPlace(), {}, threads=4096)


@pytest.mark.skipif(
    bool(list(distributions(name="onnxruntime-gpu"))), reason="it runs on CUDA here"
)
def test_cuda_is_refused_where_onnxruntime_has_none() -> None:
    with pytest.raises(HostError, match=r"cuda: .* has no CUDAExecutionProvider .*; install"):
        events(LocalPlace(on_gpu=True), {}, runtime="onnxruntime-cuda")


def test_a_killed_runner_is_reported(tmp_path: Path) -> None:
    files = {"a": write_net(tmp_path / "a.onnx")}
    running = LocalPlace().run({**JOB, "rounds": 100_000}, files)
    os.kill(next(running)["pid"], signal.SIGKILL)
    with pytest.raises(HostError, match=r"host: the measuring process was killed \(signal 9\)"):
        list(running)


def test_a_crash_is_reported_with_its_last_words(tmp_path: Path) -> None:
    crash = script(
        tmp_path / "crash", "#!/bin/sh\nread job\necho begun >&2\necho oops >&2\nexit 7\n"
    )
    message = "host: the measuring process ended with exit code 7; it last said: oops"
    with pytest.raises(HostError, match=message):
        events(LocalPlace(python=crash), {})


def test_the_runner_ends_when_its_results_are_no_longer_wanted(tmp_path: Path) -> None:
    files = {"a": write_net(tmp_path / "a.onnx")}
    with contextlib.closing(LocalPlace().run({**JOB, "rounds": 100_000}, files)) as running:
        pid = next(running)["pid"]
        os.kill(pid, 0)
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)


# --- over ssh; against a server: test_measure_ssh.py


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "@@@@\nWARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!\nHost key verification failed.",
            "someone may listen in",
        ),
        ("No ED25519 host key is known\nHost key verification failed.", "log in once by hand"),
        ("me@h: Permission denied (publickey).", "set one up with ssh-copy-id"),
        ("ssh: connect to host h port 22: Connection timed out", "cannot be reached"),
        ("ssh: connect to host h port 22: No route to host", "No route to host"),
        ("Timeout, server h not responding.", "the connection was lost"),
        ("client_loop: send disconnect: Broken pipe", "the connection was lost"),
        ("Connection reset by 10.0.0.1 port 22", "the connection was lost"),
        ("", "it cannot be reached (no reason was given)"),
    ],
)
def test_the_messages_of_ssh_are_told_apart(text: str, message: str) -> None:
    trouble = connection_trouble(text, "h")
    assert message in trouble
    assert "\n" not in trouble


def test_a_changed_key_is_removed_by_the_name_that_ssh_keeps() -> None:
    changed = "WARNING: REMOTE HOST IDENTIFICATION HAS CHANGED!"
    assert "ssh-keygen -R h;" in connection_trouble(changed, SshPlace(host="h").known_as)
    assert SshPlace(host="h", port=22).known_as == "h"
    assert SshPlace(host="h", port=2222).known_as == "'[h]:2222'"


def test_all_that_is_sent_is_one_archive(tmp_path: Path) -> None:
    net = write_net(tmp_path / "a.onnx")
    (tmp_path / "link.onnx").symlink_to(net)
    content = packed('{"mode": "probe"}', {"net0000.onnx": tmp_path / "link.onnx"})
    # Whole records, since what unpacks it reads so, and stdin stays open after it.
    assert len(content) % tarfile.RECORDSIZE == 0
    with tarfile.open(fileobj=io.BytesIO(content)) as archive:
        assert archive.getnames() == ["runner.py", "job.json", "net0000.onnx"]
        assert all(member.isfile() for member in archive)
        sent = archive.extractfile("net0000.onnx")
        assert sent is not None
        assert sent.read() == net.read_bytes()


def test_a_net_that_is_gone_is_named(tmp_path: Path) -> None:
    with pytest.raises(HostError, match=r"gone.onnx cannot be read \(No such file"):
        packed("{}", {"net0000.onnx": tmp_path / "gone.onnx"})


@pytest.mark.parametrize(
    ("folder", "ours"),
    [
        ("/tmp/hwsearch-AbCd1234", True),
        ("/var/tmp/my dir/hwsearch-AbCd1234", True),
        ("/", False),
        ("", False),
        ("/tmp", False),
        ("/tmp/hwsearch-AbCd1234/..", False),
        ("hwsearch-AbCd1234", False),
        ("/tmp/hwsearch-AbCd1234\n/", False),
    ],
)
def test_only_a_folder_of_ours_is_ever_removed(folder: str, ours: bool) -> None:
    assert (FOLDER.fullmatch(folder) is not None) is ours


def test_the_options_check_the_key_and_ask_nothing() -> None:
    command = SshPlace(host="h", user="u", port=7, ssh_options=("-v",)).command("true")
    for option in ("BatchMode=yes", "StrictHostKeyChecking=yes", "ConnectTimeout=10"):
        assert command[command.index(option) - 1] == "-o"
        assert command.index(option) < command.index("-v")  # the first value counts
    assert command[-4:] == ["-v", "--", "u@h", "true"]
    assert command[command.index("-p") + 1] == "7"


# --- processes


def test_greetings_before_the_first_event_are_left_out() -> None:
    text = 'echo welcome; echo 7; echo \'{"event": "start"}\'; echo \'{"event": "done"}\''
    with started(["sh", "-c", text]) as running:
        assert [event["event"] for event in running.events()] == ["start", "done"]


def test_text_between_events_is_refused() -> None:
    text = 'echo \'{"event": "start"}\'; echo hello'
    with (
        started(["sh", "-c", text]) as running,
        pytest.raises(HostError, match="'hello' came from"),
    ):
        list(running.events())


def test_a_process_that_ignores_the_end_of_stdin_is_stopped(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("hwsearch.hardware.measure.process._PATIENCE_S", 0.1)
    text = "trap '' TERM; echo '{\"event\": \"start\"}'; while :; do sleep 0.05; done"
    with started(["sh", "-c", text]) as running:
        next(running.events())
    assert running.exit_code() == 128 + signal.SIGKILL


def test_what_cannot_be_sent_is_explained_by_the_exit_code() -> None:
    with started(["sh", "-c", "exit 5"]) as running:
        running.process.wait()
        running.send(b"x" * 10_000_000)
        assert running.exit_code() == 5


@pytest.mark.parametrize(
    ("code", "words"),
    [(3, "ended with exit code 3"), (137, "ran out of memory"), (139, "ended by signal 11")],
)
def test_exit_codes_are_put_into_words(code: int, words: str) -> None:
    assert words in exit_reason(code)
