"""Both reference clients at a server that needs a key."""

import asyncio
import json
from pathlib import Path

import pytest

from serve_app.client import HandshakeRefused, LiveTranscription
from serve_app.client.key import VARIABLE, key_headers
from serve_app.config import Config
from tests.client.drivers import Driver, both
from tests.fakes import served
from tests.identity.keys import key_of, with_keys


def config(folder: Path) -> Config:
    args = {"profile": "sim", "storage": {"directory": str(folder)}}
    return with_keys(Config.model_validate(args), "acme")


@both
def test_a_client_shows_its_key_until_it_is_revoked(
    client: Driver, talk: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(VARIABLE, key_of("acme"))
    audio = tmp_path / "talk.raw"
    audio.write_bytes(talk)

    async def revoked_while_it_talks(address: str) -> str:
        talking = asyncio.ensure_future(client(f"http://{address}", audio, speed=1))
        await asyncio.sleep(1.5)
        (tmp_path / "data" / "keys.yaml").write_text("[]")
        last = (await talking)[-1]
        return f"{last['type']} {last['code']}"

    async def story(address: str) -> None:
        whole = await client(f"http://{address}", audio, speed=8)
        assert whole[-1]["type"] == "done"
        assert await revoked_while_it_talks(address) == "failed invalid_api_key"

    with served(config(tmp_path / "data")) as address:
        asyncio.run(story(address))


def test_without_a_key_the_client_says_so_at_once(tmp_path: Path) -> None:
    async def ask(address: str) -> None:
        async with LiveTranscription(f"http://{address}", api_key="") as live:
            await anext(live)

    with served(config(tmp_path)) as address, pytest.raises(HandshakeRefused) as refused:
        asyncio.run(ask(address))
    assert json.loads(refused.value.body)["error"]["code"] == "missing_api_key"


def test_the_key_is_the_one_given_else_the_first_of_the_environment(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv(VARIABLE, " one,two\n")
    assert key_headers() == {"Authorization": "Bearer one"}
    assert key_headers("mine") == {"Authorization": "Bearer mine"}
    monkeypatch.delenv(VARIABLE)
    assert key_headers() == key_headers("") == {}
