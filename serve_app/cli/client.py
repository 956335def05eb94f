"""The errors of the live client as the command's own."""

from collections.abc import Iterator
from contextlib import contextmanager

from serve_app.cli import Failure, NoServer
from serve_app.cli.rest import Refused
from serve_app.client.errors import (
    CertificateUnusable,
    GaveUp,
    HandshakeRefused,
    TranscriptionError,
    Unreachable,
)


@contextmanager
def reported(server: str) -> Iterator[None]:
    """Raises `NoServer`, `Refused` and `Failure`."""
    try:
        yield
    except Unreachable as error:
        raise NoServer.at(server, error) from error
    except CertificateUnusable as error:
        raise Failure(str(error)) from error
    except GaveUp as error:
        raise NoServer(f"lost the server at {server}: {error}") from error
    except HandshakeRefused as error:
        raise Refused(error.status, error.body) from error
    except TranscriptionError as error:
        raise Failure(f"the server refused: {error}") from error
