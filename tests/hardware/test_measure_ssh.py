"""Against a real OpenSSH server on loopback, run by the fixture as the current user."""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from measure_fixtures import JOB, write_net, write_nets
from ssh_server import NEEDS_SSHD, Server, free_port, make_key, serving

from hwsearch.errors import HostError
from hwsearch.hardware.measure.kept import FILE_NAME
from hwsearch.hardware.measure.protocol import MeasureProgress, measure
from hwsearch.hardware.measure.ssh import SshPlace

pytestmark = NEEDS_SSHD

LONG = {**JOB, "rounds": 100_000}


@pytest.fixture(scope="module")
def shared_server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    there = tmp_path_factory.mktemp("there")
    with serving(tmp_path_factory.mktemp("sshd"), there) as server:
        yield server


@pytest.fixture
def server(shared_server: Server) -> Iterator[Server]:
    yield shared_server
    assert shared_server.left_behind() == []


@pytest.fixture
def files(tmp_path: Path) -> dict[str, Path]:
    return write_nets(tmp_path, 2)


def refusal(place: SshPlace) -> str:
    """The one line that a probe ends with."""
    with pytest.raises(HostError) as caught:
        list(place.run({**LONG, "mode": "probe"}, {}))
    message = str(caught.value)
    assert caught.value.exit_code == 3
    assert message.startswith(f"{place.name}: ")
    assert "\n" not in message
    return message


def parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1])


def wait_for_end(pid: int) -> None:
    for _ in range(300):
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return
        time.sleep(0.1)
    pytest.fail(f"process {pid} goes on")


# --- what works


def test_nets_are_measured_over_ssh_and_nothing_stays(
    server: Server, files: dict[str, Path], tmp_path: Path
) -> None:
    seen: list[list[str]] = []

    def look(progress: MeasureProgress) -> None:
        [folder] = server.there.iterdir()
        assert re.fullmatch(r"hwsearch-\w{8}", folder.name)
        assert folder.stat().st_mode & 0o777 == 0o700
        seen.append(sorted(path.name for path in folder.iterdir()))

    files["odd name; $(touch x)"] = write_net(tmp_path / "odd.onnx", channels=20)
    try:
        report = measure(files, server.place, rounds=2, runs=3, on_progress=look)
    except HostError as error:
        if "is refused" not in str(error):  # a machine under heavy load
            raise
        pytest.skip(str(error))
    assert [net.name for net in report.nets] == list(files)
    assert all(net.latency_ms > 0 for net in report.nets)
    assert report.place == server.place.name
    assert seen[0] == ["job.json", "net0000.onnx", "net0001.onnx", "net0002.onnx", "runner.py"]


def test_a_host_that_is_measured_again_is_only_probed(
    server: Server, files: dict[str, Path], tmp_path: Path
) -> None:
    work, rounds = tmp_path / "work", list[MeasureProgress]()
    try:
        measure(files, server.place, rounds=2, runs=3, work_folder=work, on_progress=rounds.append)
    except HostError as error:
        if "is refused" not in str(error):  # a machine under heavy load
            raise
        pytest.skip(str(error))
    before = len(rounds)
    again = measure(
        files, server.place, rounds=2, runs=3, work_folder=work, on_progress=rounds.append
    )
    assert again.kept_nets == 2
    assert len(rounds) == before
    assert (work / FILE_NAME).exists()


# --- what does not


def test_a_server_that_is_missing_is_reported(server: Server) -> None:
    place = replace(server.place, port=free_port())
    message = refusal(place)
    assert "it cannot be reached (" in message
    assert "Connection refused" in message
    assert message.endswith("check the name, the port and the network")


def test_a_missing_key_is_reported(server: Server, tmp_path: Path) -> None:
    other = make_key(tmp_path / "other")
    message = refusal(replace(server.place, ssh_options=server.options(key=other)))
    assert "accepts none of the keys; set one up with ssh-copy-id" in message


def known_hosts_from(server: Server, path: Path) -> SshPlace:
    return replace(server.place, ssh_options=server.options(known=path))


def test_a_changed_host_key_is_refused(server: Server, tmp_path: Path) -> None:
    make_key(tmp_path / "other")
    public = " ".join((tmp_path / "other.pub").read_text().split()[:2])
    (tmp_path / "known").write_text(f"[127.0.0.1]:{server.place.port} {public}\n")
    message = refusal(known_hosts_from(server, tmp_path / "known"))
    assert "its host key is not the one that is known" in message
    assert f"ssh-keygen -R '[127.0.0.1]:{server.place.port}'" in message


def test_an_unknown_host_key_is_refused_whatever_the_options_say(
    server: Server, tmp_path: Path
) -> None:
    place = known_hosts_from(server, tmp_path / "none")
    weak = (*place.ssh_options, "-o", "StrictHostKeyChecking=no")
    for options in (place.ssh_options, weak):
        message = refusal(replace(place, ssh_options=options))
        assert "its host key is not known; log in once by hand" in message
    assert not (tmp_path / "none").exists()


def test_a_missing_python_is_reported(server: Server) -> None:
    message = refusal(replace(server.place, python="/no/such python"))
    assert "'/no/such python' is not installed there" in message


def test_a_missing_onnxruntime_is_reported(server: Server, tmp_path: Path) -> None:
    bare = tmp_path / "bare python"
    bare.write_text(f'#!/bin/sh\nexec {sys.executable} -S "$@"\n')
    bare.chmod(0o755)
    message = refusal(replace(server.place, python=str(bare)))
    assert "cannot import numpy; install onnxruntime for it, or name another Python" in message


def test_a_missing_ssh_is_reported(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    assert "'ssh' cannot be started (No such file or directory)" in refusal(server.place)


def test_an_account_without_commands_is_reported(server: Server, files: dict[str, Path]) -> None:
    keys = server.folder / "authorized_keys"
    plain = keys.read_text()
    keys.write_text(f'command="true" {plain}')
    try:
        with pytest.raises(HostError, match="nothing answered; it must allow commands"):
            measure(files, server.place)
    finally:
        keys.write_text(plain)


def test_a_full_disk_there_is_reported(tmp_path: Path, files: dict[str, Path]) -> None:
    there = tmp_path / "tiny"
    there.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", str(there)]
    if shutil.which("mount") is None or subprocess.run(mount, check=False).returncode != 0:
        pytest.skip("a small tmpfs cannot be mounted here")
    big = tmp_path / "big.onnx"
    big.write_bytes(os.urandom(200_000))
    try:
        with serving(tmp_path, there) as server:
            with pytest.raises(HostError, match=r"unpacked there \(.*No space left") as caught:
                measure({"big": big, **files}, server.place)
            assert str(caught.value).endswith("free space or set TMPDIR")
            assert server.left_behind() == []
    finally:
        subprocess.run(["umount", "-l", str(there)], check=True)


def test_a_folder_that_cannot_be_made_is_reported(tmp_path: Path) -> None:
    with serving(tmp_path, tmp_path / "gone") as server:
        message = refusal(server.place)
    assert "no folder can be made there (mktemp: " in message
    assert message.endswith("free space or set TMPDIR")


# --- what is broken off


def running(server: Server, files: dict[str, Path]) -> tuple[Any, int]:
    """A measurement that would go on for hours, and the process there."""
    events = server.place.run(LONG, files)
    pid = next(events)["pid"]
    assert isinstance(pid, int)
    assert next(events)["event"] == "round"
    return events, pid


def test_a_lost_connection_is_reported_and_the_runner_ends(
    server: Server, files: dict[str, Path]
) -> None:
    events, pid = running(server, files)
    session = parent_of(parent_of(pid))  # runner, shell, the server's process for this login
    os.kill(session, signal.SIGKILL)
    with pytest.raises(HostError, match="the connection was lost"):
        list(events)
    wait_for_end(pid)


def test_a_shell_that_is_killed_there_leaves_nothing(
    server: Server, files: dict[str, Path]
) -> None:
    # It cannot remove the folder itself, so a second connection does.
    events, pid = running(server, files)
    os.kill(parent_of(pid), signal.SIGKILL)
    with pytest.raises(HostError):
        list(events)
    wait_for_end(pid)


@pytest.mark.parametrize("error", [KeyboardInterrupt, RuntimeError])
def test_an_interrupted_measurement_leaves_nothing(
    server: Server, files: dict[str, Path], error: type[BaseException]
) -> None:
    def raise_it(progress: MeasureProgress) -> None:
        raise error

    with pytest.raises(error):
        measure(files, server.place, rounds=2, runs=3, on_progress=raise_it)
    assert list(server.there.iterdir()) == []  # at once, not only in the end


SCRIPT = """
import signal
import sys
from pathlib import Path
from hwsearch.hardware.measure.ssh import SshPlace
# A background job of a shell, as tests may be, hands on that SIGINT is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
place = SshPlace(host="127.0.0.1", user=sys.argv[1], port=int(sys.argv[2]),
                 python=sys.executable, ssh_options=tuple(sys.argv[5:]))
for event in place.run(eval(sys.argv[3]), {"a": Path(sys.argv[4])}):
    print(event.get("pid", ""), flush=True)
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGINT])
def test_a_killed_client_leaves_nothing(
    server: Server, files: dict[str, Path], number: signal.Signals
) -> None:
    place = server.place
    arguments = [str(place.user), str(place.port), repr(LONG), str(files["net0"])]
    child = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, *arguments, *place.ssh_options],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
    )
    assert child.stdout is not None
    pid = int(child.stdout.readline())
    child.send_signal(number)
    child.wait(60)
    child.stdout.close()
    wait_for_end(pid)
