"""`voxray talk`: a spoken conversation, with microphone and loudspeaker or from file to file."""

import asyncio
import base64
import contextlib
import json
import wave
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import IO, Any, Protocol

from rich.text import Text
from websockets.asyncio.client import ClientConnection
from websockets.exceptions import ConnectionClosedError

from deployments.decoding import Bounds, Undecodable, decode
from deployments.interfaces import RATE, VOICE_RATE
from serve_app.cli import Failure, WrongUsage, console
from serve_app.cli.client import reported
from serve_app.cli.devices import Loudspeaker, NoDevice, microphone
from serve_app.cli.output import output
from serve_app.client import paced
from serve_app.client.handshake import dial
from serve_app.client.key import key_headers

CHUNK_MS = 40
CHUNK_BYTES = VOICE_RATE * CHUNK_MS // 1000 * 2
SILENCE_S = 3.0
"""Sent after a file's end, so that its last words become a turn."""

LISTEN_S = 30.0
"""How long a file's conversation waits for the reply to begin."""


class Out(Protocol):
    """Plays the replies."""

    def play(self, pcm: bytes) -> None: ...

    def stop(self) -> int:
        """Stop at once; returns the ms of the reply that were played."""

    def close(self) -> None: ...


class WavFile:
    """Writes the replies one after the other."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = wave.open(file, "wb")
        self._file.setnchannels(1)
        self._file.setsampwidth(2)
        self._file.setframerate(VOICE_RATE)

    def play(self, pcm: bytes) -> None:
        self._file.writeframes(pcm)

    def stop(self) -> int:
        return 0  # a file contains every reply in full

    def close(self) -> None:
        self._file.close()


class NoReply(Failure):
    """The server ended the conversation, or did not answer in it."""


def talk(server: str, in_: Path | None, out: Path | None, voice: str | None) -> None:
    if out and out.suffix.lower() not in ("", ".wav"):
        raise WrongUsage(f"{out}: replies are written as wav; use a name that ends in .wav")
    try:
        with contextlib.suppress(KeyboardInterrupt), _player(out) as player:
            asyncio.run(_talk(server, in_, player, voice))
    except NoDevice as error:
        raise NoDevice(f"{error}; or use --in FILE --out FILE") from error
    except Undecodable as error:
        raise Failure(f"{in_}: {error}") from error


@contextlib.contextmanager
def _player(out: Path | None) -> Iterator[Out]:
    with contextlib.ExitStack() as stack:
        file = stack.enter_context(output(out, binary=True)) if out else None
        player: Out = WavFile(file) if file else Loudspeaker(VOICE_RATE)
        try:
            yield player
        finally:
            player.close()


async def _talk(server: str, in_: Path | None, player: Out, voice: str | None) -> None:
    pcm = paced(_file(in_), 2 * VOICE_RATE) if in_ else microphone(VOICE_RATE, CHUNK_MS)
    first = await anext(pcm)  # a missing microphone is reported before a missing server
    with reported(server):
        socket = await dial(server, "/v1/realtime", key_headers())
    try:
        async with socket:
            await _Talk(socket, player, bool(in_)).run(first, pcm, voice)
    except ConnectionClosedError as error:
        raise NoReply(f"the server closed the connection: {error}") from error


async def _file(path: Path) -> AsyncIterator[bytes]:
    """The recording and then silence."""
    upsampled = _upsampled(path)
    for at in range(0, len(upsampled), CHUNK_BYTES):
        yield upsampled[at : at + CHUNK_BYTES]


def _upsampled(path: Path) -> bytes:
    import numpy as np
    import soxr

    recorded = np.frombuffer(b"".join(decode(path, Bounds(3600, 600))), "<i2")
    samples = soxr.resample(recorded, RATE, VOICE_RATE).astype("<i2")
    return bytes(samples.tobytes()) + bytes(int(SILENCE_S * VOICE_RATE) * 2)


class _Talk:
    """One conversation."""

    def __init__(self, socket: ClientConnection, player: Out, from_file: bool) -> None:
        self._socket = socket
        self._player = player
        self._from_file = from_file
        self._item = ""
        self._turns = self._replies = 0
        """The person's finished turns, and finished replies."""
        self._progressed = asyncio.Event()

    async def run(self, first: bytes, pcm: AsyncIterator[bytes], voice: str | None) -> None:
        output = {"voice": voice} if voice else {}
        audio = {"input": {"transcription": {"model": "voxray"}}, "output": output}
        await self._send("session.update", session={"type": "realtime", "audio": audio})
        if not self._from_file:
            console.print("[dim]Speak; Ctrl-C ends.[/]")
        hearing = asyncio.create_task(self._hear())
        try:
            await self._say(first)
            async for chunk in pcm:
                await self._say(chunk)
                if hearing.done():
                    break
            await asyncio.wait_for(self._all_answered(), LISTEN_S)
        except TimeoutError as error:
            raise NoReply(f"no reply within {LISTEN_S:g} s") from error
        finally:
            hearing.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await hearing

    async def _all_answered(self) -> None:
        while self._replies < self._turns:
            self._progressed.clear()
            await self._progressed.wait()

    async def _say(self, pcm: bytes) -> None:
        await self._send("input_audio_buffer.append", audio=base64.b64encode(pcm).decode())

    async def _send(self, type_: str, **fields: Any) -> None:
        await self._socket.send(json.dumps({"type": type_, **fields}))

    async def _hear(self) -> None:
        async for frame in self._socket:
            await self._on_event(json.loads(frame))
            self._progressed.set()

    async def _on_event(self, event: dict[str, Any]) -> None:
        match event["type"]:
            case "error":
                raise NoReply(event["error"]["message"])
            case "input_audio_buffer.speech_started":
                await self._interrupt()
            case "conversation.item.input_audio_transcription.completed":
                self._turns += bool(event["transcript"])
                console.print(Text(f"you: {event['transcript']}", style="cyan"))
            case "response.output_audio.delta":
                self._item = event["item_id"]
                self._player.play(base64.b64decode(event["delta"]))
            case "response.output_audio_transcript.done":
                console.print(Text(f"it:  {event['transcript']}"))
            case "response.done":
                self._replies += 1

    async def _interrupt(self) -> None:
        """Stop playing, and tell the server how much was played."""
        played_ms = self._player.stop()
        if self._item and played_ms:
            await self._send(
                "conversation.item.truncate",
                item_id=self._item,
                content_index=0,
                audio_end_ms=played_ms,
            )
        self._item = ""
