"""Both reference clients against the application itself, over a network that cuts connections."""

import asyncio
from pathlib import Path

from tests.client.cutting import cutting
from tests.client.drivers import Driver, Event, both
from tests.fakes import served

CUTS = (20_000, 70_000, 130_000, 60_000, 200_000)
"""Bytes from the client after which each connection is cut; 32,000 are one second."""


def words(events: list[Event]) -> list[tuple[int, int, int, str]]:
    finals = [event for event in events if event["type"] == "final"]
    return [(it["utterance"], it["start_ms"], it["end_ms"], it["text"]) for it in finals]


@both
def test_the_words_are_those_of_the_unbroken_run(
    client: Driver, talk: bytes, tmp_path: Path
) -> None:
    audio = tmp_path / "talk.raw"
    audio.write_bytes(talk)

    async def streamed(address: str, *cuts: int) -> list[Event]:
        async with cutting(address, *cuts) as proxy:
            return await client(f"http://{proxy}", audio, speed=8)

    with served() as address:
        whole = asyncio.run(streamed(address))
        broken = asyncio.run(streamed(address, *CUTS))
    assert words(broken) == words(whole) and len(words(whole)) == 4
    assert [event["type"] for event in broken].count("resumed") == len(CUTS)
    for events in (whole, broken):
        assert [event["type"] for event in events][-2:] == ["closed", "done"]
    assert broken[-2]["metrics"]["words"] == whole[-2]["metrics"]["words"]
