"""What the dialect of a conversation needs from the server. Pure."""

from collections.abc import Callable
from dataclasses import dataclass

from serve_app.config import Limits
from serve_app.conversation.reply import ReplySettings
from serve_app.live.events import Listening
from serve_app.live.options import Engines


@dataclass(frozen=True, slots=True)
class DialectTerms:
    """Of one connection; `settings` and `listening` apply until the client changes them."""

    limits: Limits
    settings: ReplySettings
    listening: Listening
    revises: bool
    """The transcriber's finals may differ from its partials, so they are not sent as deltas."""
    resolve_voice: Callable[[str | None], str]
    """Finds the id of the voice that a client names, or raises `ClientError`."""
    engines: Engines
