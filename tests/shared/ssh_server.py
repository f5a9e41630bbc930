"""A real OpenSSH server on loopback, run as the current user, with keys of its own."""

import contextlib
import getpass
import os
import shutil
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from hwsearch.hardware.measure.ssh import SshPlace

SSHD = shutil.which("sshd") or "/usr/sbin/sshd"

#: Marks of every test that needs one.
NEEDS_SSHD = [
    pytest.mark.slow,
    pytest.mark.skipif(not Path(SSHD).exists(), reason="no OpenSSH server (openssh-server)"),
    pytest.mark.skipif(shutil.which("ssh") is None, reason="no OpenSSH client"),
]


@dataclass(frozen=True, kw_only=True)
class Server:
    """A running server.

    Attributes:
        folder: of its keys and of the files that ``ssh`` is given.
        there: what is TMPDIR for those who log in.
    """

    port: int
    folder: Path
    there: Path

    @property
    def place(self) -> SshPlace:
        """For those who log in with the right key, and know that of the server."""
        return SshPlace(
            host="127.0.0.1",
            user=getpass.getuser(),
            port=self.port,
            python=sys.executable,
            ssh_options=self.options(),
        )

    def options(self, *, key: Path | None = None, known: Path | None = None) -> tuple[str, ...]:
        """As ``--ssh-option`` takes them."""
        return (
            *("-F", "/dev/null", "-i", str(key or self.folder / "user")),
            *("-o", "IdentitiesOnly=yes", "-o", f"UserKnownHostsFile={known or self.known_hosts}"),
            *("-o", "GlobalKnownHostsFile=/dev/null"),
        )

    @property
    def known_hosts(self) -> Path:
        """The file that knows the server's key."""
        return self.folder / "known_hosts"

    def left_behind(self) -> list[str]:
        """What lies in TMPDIR, once it has had a moment to be removed."""
        names: list[str] = []
        for _ in range(100):
            names = [path.name for path in self.there.iterdir()]
            if not names:
                break
            time.sleep(0.1)
        return names


def make_key(path: Path) -> Path:
    subprocess.run(
        ["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(path)], check=True, timeout=60
    )
    return path


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
        assert isinstance(port, int)
        return port


@contextlib.contextmanager
def serving(folder: Path, there: Path) -> Iterator[Server]:
    """A server with keys of its own, until the block ends."""
    if os.getuid() == 0:  # else it separates no privileges
        Path("/run/sshd").mkdir(mode=0o755, exist_ok=True)
    host_key, port = make_key(folder / "host"), free_port()
    make_key(folder / "user")
    shutil.copy(folder / "user.pub", folder / "authorized_keys")
    (folder / "config").write_text(
        f"ListenAddress 127.0.0.1\nPort {port}\nHostKey {host_key}\nPidFile none\nUsePAM no\n"
        f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nPermitRootLogin yes\n"
        f"PasswordAuthentication no\nKbdInteractiveAuthentication no\nSetEnv TMPDIR={there}\n"
    )
    public = " ".join((folder / "host.pub").read_text().split()[:2])
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}\n")
    with (folder / "log").open("w") as log:
        command = [SSHD, "-D", "-e", "-f", str(folder / "config")]
        server = subprocess.Popen(command, stderr=log, start_new_session=True)
    try:
        for _ in range(100):
            with socket.socket() as probe:
                if probe.connect_ex(("127.0.0.1", port)) == 0:
                    break
            if server.poll() is not None:
                pytest.fail(f"sshd did not start: {(folder / 'log').read_text()}")
            time.sleep(0.1)
        else:
            pytest.fail(f"sshd does not answer: {(folder / 'log').read_text()}")
        yield Server(port=port, folder=folder, there=there)
    finally:
        server.terminate()
        server.wait(30)
