"""OpenAI's own client at a server that needs keys: it shows them, and raises its own errors."""

import asyncio
from collections.abc import Iterator

import openai
import pytest
from openai import AsyncOpenAI, OpenAI

from serve_app.config import Config
from serve_app.identity.principal import Scope
from tests.fakes import served
from tests.identity.keys import key_of, with_keys


@pytest.fixture(scope="module")
def url(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    args = {"profile": "sim", "storage": {"directory": str(tmp_path_factory.mktemp("openai"))}}
    config = with_keys(Config.model_validate(args), "acme", talker={Scope.CHAT})
    with served(config) as address:
        yield f"http://{address}/v1"


def test_it_chats_and_talks_with_a_key(url: str) -> None:
    with OpenAI(base_url=url, api_key=key_of("talker"), max_retries=0) as client:
        said = client.chat.completions.create(
            model="any", messages=[{"role": "user", "content": "Hi"}]
        )
    assert said.choices[0].message.content

    async def talk() -> str:
        async with (
            AsyncOpenAI(base_url=url, api_key=key_of("acme")) as everything,
            everything.realtime.connect(model="any") as connection,
        ):
            return (await connection.recv()).type

    assert asyncio.run(talk()) == "session.created"


def test_it_raises_what_it_raises_at_openai(url: str) -> None:
    with (
        OpenAI(base_url=url, api_key="sk-wrong", max_retries=0) as wrong,
        pytest.raises(openai.AuthenticationError) as unknown,
    ):
        wrong.models.list()
    assert unknown.value.code == "invalid_api_key"
    with (
        OpenAI(base_url=url, api_key=key_of("talker"), max_retries=0) as limited,
        pytest.raises(openai.PermissionDeniedError, match="the scope speak") as denied,
    ):
        limited.audio.speech.create(model="any", voice="alloy", input="Hi")
    assert denied.value.code == "missing_scope"


def test_a_client_secret_takes_the_place_of_the_key(url: str) -> None:
    async def talk() -> str:
        async with AsyncOpenAI(base_url=url, api_key=key_of("acme")) as server:
            secret = await server.realtime.client_secrets.create(session={"type": "realtime"})
        async with AsyncOpenAI(base_url=url, api_key=secret.value, max_retries=0) as browser:
            with pytest.raises(openai.AuthenticationError):
                await browser.models.list()
            async with browser.realtime.connect(model="any") as connection:
                return (await connection.recv()).type

    assert asyncio.run(talk()) == "session.created"
