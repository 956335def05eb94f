"""The `voxray` command."""

import json
from typing import Any

from rich.console import Console
from rich.text import Text

DONE, FAILED, NO_SERVER = 0, 1, 3
"""Exit codes; 2 is wrong usage, said by the option parser."""

console = Console(stderr=True, highlight=False, soft_wrap=True)
"""Where people are told things; results go to stdout."""


def complain(message: str) -> None:
    """What went wrong, verbatim: it may hold brackets that Rich would take for markup."""
    console.print(Text(message, style="red"))


def refusal(answer: Any) -> str:
    """What an HTTP answer that is no success says."""
    try:
        message: str = json.loads(answer.content)["error"]["message"]
    except (ValueError, KeyError, TypeError):
        return f"the server answered HTTP {answer.status_code}: is it voxray?"
    return f"the server refused: {message}"
