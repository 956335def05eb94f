"""What can go wrong for a client of a live session. A lost connection does not: it is resumed."""


class TranscriptionError(Exception):
    """Why there is no transcription, or no more of it."""


class Unreachable(TranscriptionError):
    """No server answers at the address."""


class CertificateUnusable(TranscriptionError):
    """The file with the client's own certificate cannot be used."""


class GaveUp(TranscriptionError):
    """The connection was lost, or the server was full, for longer than the client waits."""


class HandshakeRefused(TranscriptionError):
    """The server answered the handshake with an HTTP status, and perhaps said when to come back."""

    def __init__(self, status: int, body: bytes, retry_after_s: float = 0.0) -> None:
        super().__init__(f"the server answered HTTP {status}")
        self.status = status
        self.body = body
        self.retry_after_s = retry_after_s


class SessionFailed(TranscriptionError):
    """The server refused or ended the session, and another connection would not change that.

    `code` is stable: docs/protocol.md lists all of them.
    """

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


class ResumeRefused(SessionFailed):
    """The session cannot be continued, and a new one might lose words of it."""


class SessionOver(TranscriptionError):
    """Audio was given to a session that has ended."""
