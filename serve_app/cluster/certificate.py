"""HAProxy's certificate: copied beside its configuration, and changed while it runs.

HAProxy reads files only when it starts, and Serve starts another one whenever the replicas change.
So it gets a copy of files that are known to be good, and a process beside it looks whether the
configured ones have changed: new connections get the new certificate, open ones go on. Files that
cannot be used change nothing.
"""

import contextlib
import ctypes
import os
import re
import signal
import socket
import sys
import time
from pathlib import Path

from serve_app.cluster.front import CLIENT_CA_FILE, PEM_FILE, Front
from serve_app.security.certificates import TlsFiles, WrongCertificate, checked, now

CHECK_S = 2.0
ANSWER_TIMEOUT_S = 10.0
DIE_WITH_PARENT = 1  # PR_SET_PDEATHSIG of <linux/prctl.h>

BLOCK = re.compile(rb"-----BEGIN [A-Z0-9 ]+-----.*?-----END [A-Z0-9 ]+-----", re.DOTALL)
"""What counts of a PEM file: to HAProxy, an empty line between would be the end of a command."""


class NotTaken(Exception):
    """HAProxy did not take it."""


def files_of(front: Front) -> TlsFiles:
    return TlsFiles(front.certificate, front.key, front.client_ca)


def install(front: Front, folder: Path) -> None:
    """Copy the files for an HAProxy that starts. If they have become unusable since, the last good
    ones stay. Raises `WrongCertificate` if there are none."""
    try:
        copies = _checked_copies(files_of(front))
    except WrongCertificate as error:
        if not (folder / PEM_FILE).exists():
            raise
        return _say(f"kept the last certificate: {error}")
    for name, content in copies.items():
        _write(folder / name, content)


def _checked_copies(files: TlsFiles) -> dict[str, bytes]:
    """What HAProxy gets, by file. Raises `WrongCertificate`."""
    checked(files, now())
    certificate, key, ca = files.read()
    copies = {PEM_FILE: _pem(certificate + b"\n" + key)}
    return copies | ({CLIENT_CA_FILE: _pem(ca)} if ca else {})


def _pem(content: bytes) -> bytes:
    blocks = (block.replace(b"\r", b"") for block in BLOCK.findall(content))
    return b"\n".join(blocks) + b"\n"


def _write(path: Path, content: bytes) -> None:
    """For the owner only, and never half."""
    new = path.with_suffix(".new")
    new.unlink(missing_ok=True)
    with os.fdopen(os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
    new.replace(path)


def follow_beside(front: Front, folder: Path, admin: str) -> None:
    """Start the process that follows the files. It ends with the caller, who becomes HAProxy."""
    haproxy = os.getpid()
    if os.fork():
        return
    try:
        ctypes.CDLL(None).prctl(DIE_WITH_PARENT, signal.SIGKILL)
        if os.getppid() == haproxy:
            Follower(files_of(front), folder, admin, haproxy).run()
    except Exception as error:  # the outermost edge of this process
        _say(f"the certificate is not followed any more: {error!r}")
    finally:
        os._exit(0)


class Follower:
    """`haproxy` is a process id: the one that answers at the socket `admin` may be another."""

    def __init__(self, files: TlsFiles, folder: Path, admin: str, haproxy: int) -> None:
        self._files, self._folder, self._admin, self._haproxy = files, folder, admin, haproxy
        self._seen = self._read()
        self._took_over = False

    def run(self) -> None:
        """Until another HAProxy has taken the place of ours."""
        while not self._is_replaced():
            if (content := self._read()) != self._seen:
                self._seen = content
                self._change()
            time.sleep(CHECK_S)

    def _read(self) -> object:
        """What is in the files; why they cannot be read counts as a content, too."""
        try:
            return self._files.read()
        except WrongCertificate as error:
            return str(error)

    def _is_replaced(self) -> bool:
        """Before ours has taken over, the one before it answers."""
        with contextlib.suppress(OSError):
            is_ours = f"Pid: {self._haproxy}\n" in self._ask(b"show info")
            self._took_over = self._took_over or is_ours
            return self._took_over and not is_ours
        return False

    def _change(self) -> None:
        try:
            for name, content in _checked_copies(self._files).items():
                self._commit("ca-file" if name == CLIENT_CA_FILE else "cert", name, content)
        except (WrongCertificate, NotTaken, OSError) as error:
            _say(f"the certificate was not changed: {error}")
        else:
            _say("changed the certificate")

    def _commit(self, kind: str, name: str, content: bytes) -> None:
        path = self._folder / name
        command = f"ssl {kind} {path}"
        self._ask(f"set {command} <<\n".encode() + content)
        if "Success" not in (said := self._ask(f"commit {command}".encode())):
            self._ask(f"abort {command}".encode())
            raise NotTaken(f"HAProxy: {said.strip()}")
        _write(path, content)

    def _ask(self, command: bytes) -> str:
        with socket.socket(socket.AF_UNIX) as connection:
            connection.settimeout(ANSWER_TIMEOUT_S)
            connection.connect(self._admin)
            connection.sendall(command + b"\n")
            answer = b""
            while part := connection.recv(65536):
                answer += part
        return answer.decode(errors="replace")


def _say(what: str) -> None:
    """Into Serve's file of HAProxy's own messages; an ingress replica logs it, too."""
    print(f"voxray-haproxy: {what}", file=sys.stderr, flush=True)
