"""`voxray transcribe` over a network that cuts its connections."""

import asyncio
from pathlib import Path

from loadtest.speech import wav
from tests.client.cutting import cutting
from tests.fakes import served
from tests.server import voxray


def test_the_command_resumes_by_itself_and_says_so(talk: bytes, tmp_path: Path) -> None:
    file = tmp_path / "talk.wav"
    file.write_bytes(wav(talk[: 32_000 * 9]))

    async def transcribed(address: str) -> tuple[str, str]:
        async with cutting(address, 60_000, 90_000) as proxy:
            command = ("transcribe", str(file), "--realtime", "--server", f"http://{proxy}")
            result = await asyncio.to_thread(voxray, *command)
        assert result.returncode == 0, result.stderr
        return result.stdout, result.stderr

    with served() as address:
        whole = voxray("transcribe", str(file), "--server", f"http://{address}")
        said, told = asyncio.run(transcribed(address))
    assert said == whole.stdout and len(said.splitlines()) >= 2
    assert told.count("no connection (closed with 1006); trying again in ") == 2
    assert told.count("nothing is lost") == 2
