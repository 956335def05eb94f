"""The `start` of `WS /ws`: a conversation whose history is kept, or one that continues. Pure."""

import uuid
from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from serve_app.dialects.frames import Frame
from serve_app.dialects.native import SESSION_ID
from serve_app.errors import ClientError, invalid
from serve_app.security.resume_token import Continued, ResumeTokens


class ConversationStart(BaseModel):
    """The client's name for a new conversation, or the token of one that continues."""

    model_config = ConfigDict(extra="forbid", strict=True)

    type: Literal["start"]
    session_id: Annotated[str, Field(pattern=f"^{SESSION_ID.pattern}$")] | None = None
    resume: str | None = None


class KeptSession:
    """What is known of a conversation that is kept; without `tokens` none is."""

    def __init__(self, tokens: ResumeTokens | None) -> None:
        self._tokens = tokens
        self.session: Continued | None = None

    @property
    def tenant(self) -> str:
        return self._tokens.tenant if self._tokens else ""

    def start(self, message: Frame) -> Continued:
        """Raises `ClientError`."""
        if self._tokens is None:
            raise ClientError("resume_refused", "conversations of this kind are not kept")
        try:
            asked = ConversationStart.model_validate(message)
        except ValidationError as error:
            raise invalid(error, message, "invalid_message", "start") from error
        if bool(asked.session_id) == bool(asked.resume):
            reason = "start needs either session_id or resume"
            raise ClientError("invalid_message", reason, param="start")
        self.session = self._begun(asked, self._tokens)
        return self.session

    def _begun(self, asked: ConversationStart, tokens: ResumeTokens) -> Continued:
        if asked.session_id:
            return Continued(asked.session_id, uuid.uuid4().hex, 0, int(tokens.clock()))
        known, _ = tokens.opened(asked.resume)
        return known._replace(epoch=known.epoch + 1)

    def fields(self) -> Frame:
        """The token for a message to the client, if the conversation is kept."""
        if self._tokens is None or self.session is None:
            return {}
        return {"resume": self._tokens.mint(self.session)}
