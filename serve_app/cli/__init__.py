"""The `voxray` command.

Exit codes: 0 done, 1 failed, 2 wrong usage, 3 no server. A command raises `Failure`, and `main`
turns it into a message and an exit code.
"""

import ssl

from rich.console import Console
from rich.text import Text

DONE, FAILED, USAGE, NO_SERVER = 0, 1, 2, 3

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Messages for people; results go to stdout."""


class Failure(Exception):
    """Why a command failed, for the user."""

    exit_code = FAILED


class WrongUsage(Failure):
    """A combination of options that is found to be wrong only when the command runs."""

    exit_code = USAGE


class NoServer(Failure):
    """No server answers at the address, or the connection was lost."""

    exit_code = NO_SERVER

    @classmethod
    def at(cls, url: str, error: BaseException) -> "NoServer":
        if reason := _untrusted(error):
            return cls(
                f"the server at {url} is not trusted: {reason}. A certificate that the system does "
                "not know is trusted with: export SSL_CERT_FILE=FILE"
            )
        return cls(
            f"no voxray server at {url}; start one with `voxray run`, or wait if it is still "
            "starting"
        )


def _untrusted(error: BaseException | None) -> str:
    """Why its certificate is refused; "" if that is not the reason."""
    while error:
        if isinstance(error, ssl.SSLCertVerificationError):
            return error.verify_message
        error = error.__cause__ or error.__context__
    return ""


def complain(message: str) -> None:
    """Print an error verbatim, because Rich would read brackets in it as markup."""
    console.print(Text(message, style="red"))
