"""The available voices, and the names that stand for them."""

import asyncio
import itertools
import logging
from collections.abc import Awaitable, Callable, Sequence

from deployments.interfaces import Voice
from deployments.speaker.blend import parts
from serve_app.backoff import backoff_s
from serve_app.errors import ClientError

log = logging.getLogger("voxray.voices")

PATH = "/v1/audio/voices"
RETRY_S, SLOWEST_RETRY_S = 0.2, 2.0

List = Callable[[], Awaitable[Sequence[Voice]]]


class VoiceCatalog:
    """Known once the speaker deployment has answered; `aliases` are names by config, and so are
    the voices of `styles`. An engine that `blends` speaks with several voices at once."""

    def __init__(
        self,
        list_: List,
        default: str,
        aliases: dict[str, str],
        styles: dict[str, str],
        blends: bool,
    ) -> None:
        self.styles = styles
        self._blends = blends
        self._list = list_
        self._default = default
        self._aliases = aliases
        self._known: dict[str, Voice] = {}

    @property
    def ready(self) -> bool:
        return bool(self._known)

    @property
    def all(self) -> list[Voice]:
        return list(self._known.values())

    @property
    def aliases(self) -> dict[str, str]:
        return self._aliases

    @property
    def default(self) -> str:
        return self._default or next(iter(self._known), "")

    async def run(self) -> None:
        """Ask until the speaker has answered: it may still be starting."""
        for attempt in itertools.count(1):
            try:
                self._known = {voice.id: voice for voice in await self._list()}
            except Exception as error:  # Ray raises various errors while there is no replica
                log.info("voices_unknown", extra={"cause": type(error).__name__})
            if self._known:
                return
            await asyncio.sleep(backoff_s(RETRY_S, attempt, SLOWEST_RETRY_S))

    def resolve(self, asked: str | None, style: str | None = None) -> str:
        """The id of the voice, or the blend, that a client names. Raises `ClientError` for an
        unknown one."""
        asked = self._styled(style) if style else asked
        if not asked:
            return self.default
        voice = self._aliases.get(asked, asked)
        if self._known and voice not in self._known and not self._is_blend(voice):
            reason = f"unknown voice {asked[:80]!r}; GET {PATH} lists the voices"
            raise ClientError("unknown_voice", reason, param="style" if style else "voice")
        return voice

    def _styled(self, style: str) -> str:
        if style not in self.styles:
            known = ", ".join(sorted(self.styles)) or "none"
            reason = f"unknown style {style[:80]!r}; configured styles: {known}"
            raise ClientError("unknown_style", reason, param="style")
        return self.styles[style]

    def _is_blend(self, voice: str) -> bool:
        try:
            return self._blends and all(part.voice in self._known for part in parts(voice))
        except ValueError:
            return False
