"""Real stores for tests: PostgreSQL and Redis from their Debian packages, S3 by moto's server."""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.ports import free_port
from tests.waiting import await_listening, wait_for

BUCKET = "recordings"
LOOPBACK = "127.0.0.1"
CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_REGION": "us-east-1",
}


def absent(what: str) -> None:
    """Skip the test; in CI, fail."""
    (pytest.fail if os.environ.get("CI") else pytest.skip)(what)


class Postgres:
    """A server of its own, which can be stopped and started again."""

    def __init__(self, folder: Path, binaries: Path, host: str = LOOPBACK) -> None:
        self.folder = folder
        self._binaries = binaries
        self._host = host
        self.port = free_port()
        self._user = "postgres" if os.getuid() == 0 else None
        self._process: subprocess.Popen[bytes] | None = None
        if self._user:
            shutil.chown(folder, self._user)
        self._run("initdb", "-D", str(folder / "db"), "-U", "voxray", "--auth=trust", "-N")
        with (folder / "db/pg_hba.conf").open("a") as allowed:
            allowed.write(f"host all all {host}/24 trust\n")
        self.start()

    @property
    def url(self) -> str:
        return f"postgresql+asyncpg://voxray@{self._host}:{self.port}/postgres"

    def start(self) -> None:
        command = ["postgres", "-D", str(self.folder / "db"), "-p", str(self.port)]
        options = [
            "-c",
            f"listen_addresses={self._host}",
            "-c",
            f"unix_socket_directories={self.folder}",
        ]
        self._process = subprocess.Popen(
            [str(self._binaries / command[0]), *command[1:], *options],
            user=self._user,
            cwd=self.folder,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await_listening(self.port, self._process, host=self._host)
        binary = str(self._binaries / "pg_isready")
        ready = [binary, "-q", "-h", self._host, "-p", str(self.port)]
        wait_for(lambda: subprocess.run(ready).returncode == 0, 30)

    def stop(self) -> None:
        if self._process:
            self._process.send_signal(3)  # SIGQUIT: at once, as a crash
            self._process.wait()
            self._process = None

    def clear(self) -> None:
        """As if it were new."""
        self.ask("DROP SCHEMA public CASCADE; CREATE SCHEMA public")

    def ask(self, sql: str) -> str:
        where = ["-h", self._host, "-p", str(self.port), "-U", "voxray", "-d", "postgres"]
        return self._run("psql", "-q", "-A", "-t", *where, "-c", sql)

    def _run(self, *command: str) -> str:
        done = subprocess.run(
            [str(self._binaries / command[0]), *command[1:]],
            user=self._user,
            cwd=self.folder,
            check=True,
            capture_output=True,
            text=True,
        )
        return done.stdout.strip()


@contextmanager
def postgres(host: str = LOOPBACK) -> Iterator[Postgres]:
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        absent("PostgreSQL is not installed: apt-get install postgresql")
    folder = Path(tempfile.mkdtemp(prefix="voxray-pg-", dir="/tmp"))
    server = Postgres(folder, found[-1].parent, host)
    try:
        yield server
    finally:
        server.stop()
        shutil.rmtree(folder, ignore_errors=True)


class S3:
    """moto's server with one bucket; it can be stopped and started again, and forgets then."""

    def __init__(self, host: str = LOOPBACK) -> None:
        self._host = host
        self.port = free_port()
        self.start()

    @property
    def endpoint(self) -> str:
        return f"http://{self._host}:{self.port}"

    def start(self) -> None:
        moto = Path(sys.executable).parent / "moto_server"
        self._process = subprocess.Popen(
            [str(moto), "-H", self._host, "-p", str(self.port)],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        await_listening(self.port, self._process, host=self._host)
        import httpx2 as httpx

        httpx.put(f"{self.endpoint}/{BUCKET}", timeout=20).raise_for_status()

    def freeze(self, frozen: bool) -> None:
        self._process.send_signal(19 if frozen else 18)  # SIGSTOP, SIGCONT

    def stop(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def s3(host: str = LOOPBACK) -> Iterator[S3]:
    server = S3(host)
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": server.endpoint}.items():
            patch.setenv(name, value)
        try:
            yield server
        finally:
            server.stop()


class Redis:
    """A server that keeps nothing on disk; it can be killed, frozen and started again."""

    def __init__(self, binary: str, host: str = LOOPBACK) -> None:
        self._binary, self._host = binary, host
        self.port = free_port()
        self.start()

    @property
    def url(self) -> str:
        return f"redis://{self._host}:{self.port}/0"

    def start(self) -> None:
        where = ("--bind", self._host, "--port", str(self.port))
        options = (*where, "--protected-mode", "no", "--save", "")
        self._process = subprocess.Popen([self._binary, *options], stdout=subprocess.DEVNULL)
        await_listening(self.port, self._process, host=self._host)

    def freeze(self, frozen: bool) -> None:
        self._process.send_signal(19 if frozen else 18)  # SIGSTOP, SIGCONT

    def kill(self) -> None:
        self._process.kill()
        self._process.wait()


@contextmanager
def redis_server(host: str = LOOPBACK) -> Iterator[Redis]:
    if not (binary := shutil.which("redis-server")):
        absent("Redis is not installed: apt-get install redis-server")
    server = Redis(str(binary), host)
    try:
        yield server
    finally:
        server.kill()


@contextmanager
def redis(host: str) -> Iterator[str]:
    """The address of one."""
    with redis_server(host) as server:
        yield f"{host}:{server.port}"
