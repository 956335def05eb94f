import asyncio
from collections.abc import Sequence

import pytest

from deployments.interfaces import Voice
from serve_app.conversation.voices import RETRY_S, SLOWEST_RETRY_S, VoiceCatalog

FAILURES = 6


def test_the_speaker_is_asked_less_and_less_often_until_it_answers(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    waits: list[float] = []

    async def sleep(seconds: float) -> None:
        waits.append(seconds)

    async def listed() -> Sequence[Voice]:
        if len(waits) < FAILURES:
            raise ConnectionError
        return [Voice("anna", "en", "female", "Anna")]

    monkeypatch.setattr("serve_app.conversation.voices.asyncio.sleep", sleep)
    catalog = VoiceCatalog(listed, "", {}, {}, False)
    asyncio.run(catalog.run())
    assert catalog.ready and catalog.default == "anna" and len(waits) == FAILURES
    for attempt, wait in enumerate(waits):
        whole = min(RETRY_S * 2**attempt, SLOWEST_RETRY_S)
        assert whole / 2 <= wait <= whole
