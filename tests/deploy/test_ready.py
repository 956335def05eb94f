"""The image's health check, before HAProxy with and without TLS."""

import subprocess
import sys
from pathlib import Path

import pytest

from tests.authority import Authority
from tests.cluster import test_certificate, test_haproxy
from tests.cluster.test_haproxy import application, server
from tests.ports import free_port

SCRIPT = Path(__file__).parent.parent.parent / "deploy/containers/ready.py"


def code(port: int) -> int:
    return subprocess.run(
        [sys.executable, str(SCRIPT), str(port)], stderr=subprocess.DEVNULL
    ).returncode


@pytest.mark.parametrize(("status", "expected"), [(200, 0), (503, 1)])
def test_it_says_whether_the_server_is_ready(tmp_path: Path, status: int, expected: int) -> None:
    authority = Authority(tmp_path / "certificates")
    with server(status) as port:
        ingress = application(port)
        with test_haproxy.haproxy(tmp_path, ingress) as url:
            assert code(int(url.rpartition(":")[2])) == expected
        files = authority.files("server")
        with test_certificate.haproxy(tmp_path, files, authority.ca, ingress=ingress) as it:
            assert code(it.port) == expected


def test_without_a_server_it_fails() -> None:
    assert code(free_port()) == 1
