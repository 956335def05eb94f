"""REST requests to the server, and their errors."""

import json
import ssl
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpx2 as httpx

from serve_app.cli import Failure, NoServer
from serve_app.client.errors import CertificateUnusable
from serve_app.client.handshake import is_loopback
from serve_app.client.key import VARIABLE, key_headers
from serve_app.client.tls import tls

TIMEOUT = httpx.Timeout(120, connect=10, write=600, read=600)


class Refused(Failure):
    """The server answered with an error."""

    def __init__(self, status: int, body: bytes) -> None:
        super().__init__(_refusal(status, body))
        self.status = status


class Rest:
    """The REST API of the server at `url`. Raises `Refused`, `NoServer` and `Failure`."""

    def __init__(self, url: str) -> None:
        self._url = url.rstrip("/")
        self._client = httpx.Client(
            base_url=self._url,
            headers=key_headers(),
            timeout=TIMEOUT,
            trust_env=not is_loopback(url),
            verify=_tls(),
        )

    def ask(self, method: str, path: str, **options: Any) -> Any:
        with _reached(self._url):
            answer = self._client.request(method, path, **options)
        return _accepted(answer)

    @contextmanager
    def stream(self, method: str, path: str, **options: Any) -> Iterator[Any]:
        with _reached(self._url), self._client.stream(method, path, **options) as answer:
            if answer.is_error:
                answer.read()
            yield _accepted(answer)


def _tls() -> ssl.SSLContext:
    try:
        return tls()
    except CertificateUnusable as error:
        raise Failure(str(error)) from error


@contextmanager
def _reached(url: str) -> Iterator[None]:
    try:
        yield
    except (httpx.ConnectError, httpx.ConnectTimeout) as error:
        raise NoServer.at(url, error) from error
    except httpx.TimeoutException as error:
        raise NoServer(f"the server at {url} did not answer in time") from error
    except httpx.HTTPError as error:
        raise NoServer(f"lost the connection to the server at {url}: {error}") from error


def _accepted(answer: httpx.Response) -> httpx.Response:
    if answer.is_error:
        raise Refused(answer.status_code, answer.content)
    return answer


def _refusal(status: int, body: bytes) -> str:
    try:
        said = f"the server refused: {json.loads(body)['error']['message']}"
    except (ValueError, KeyError, TypeError):
        return f"the server answered HTTP {status}; is it a voxray server?"
    return f"{said}; this command takes it from ${VARIABLE}" if status == 401 else said
