"""Microphone and loudspeaker, through PortAudio."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from serve_app.cli import Failure, console

MAX_BLOCKED_S = 10
"""When more audio than that waits to be sent, new audio is dropped, with a warning."""


class NoDevice(Failure):
    """No audio device, or no PortAudio to reach one."""


def _sounddevice(wanted: str) -> Any:
    try:
        import sounddevice
    except OSError as error:
        raise NoDevice(
            f"no {wanted}: PortAudio is not installed; run `sudo apt-get install libportaudio2`"
        ) from error
    return sounddevice


async def microphone(
    rate: int, block_ms: int, seconds: float | None = None
) -> AsyncIterator[bytes]:
    """Blocks of mono pcm_s16le. Raises `NoDevice`."""
    sounddevice = _sounddevice("microphone")
    loop = asyncio.get_running_loop()
    blocks: asyncio.Queue[bytes] = asyncio.Queue(MAX_BLOCKED_S * 1000 // block_ms)

    def put(block: bytes) -> None:
        with contextlib.suppress(asyncio.QueueFull):
            return blocks.put_nowait(block)
        console.print("[yellow]the server cannot keep up; some audio was dropped")

    def on_block(block: Any, *_: Any) -> None:
        loop.call_soon_threadsafe(put, bytes(block))

    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        stream = sounddevice.RawInputStream(
            rate, rate * block_ms // 1000, channels=1, dtype="int16", callback=on_block
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoDevice("no microphone: no audio input device found") from error
    with stream:
        while time.monotonic() < until:
            yield await blocks.get()


class Loudspeaker:
    """Plays in real time from a queue that can be cleared. Raises `NoDevice`."""

    def __init__(self, rate: int) -> None:
        sounddevice = _sounddevice("loudspeaker")
        self._rate = rate
        self._waiting = bytearray()
        self._played = 0
        self._lock = threading.Lock()
        try:
            self._stream = sounddevice.RawOutputStream(
                rate, channels=1, dtype="int16", callback=self._fill
            )
        except (sounddevice.PortAudioError, ValueError) as error:
            raise NoDevice("no loudspeaker: no audio output device found") from error
        self._stream.start()

    def play(self, pcm: bytes) -> None:
        with self._lock:
            self._waiting += pcm

    def stop(self) -> int:
        """Clear the queue; the ms played since the last `stop`."""
        with self._lock:
            self._waiting.clear()
            played, self._played = self._played, 0
        return played * 1000 // (2 * self._rate)

    def close(self) -> None:
        self._stream.close()

    def _fill(self, block: Any, frames: int, *_: Any) -> None:
        with self._lock:
            audio = bytes(self._waiting[: 2 * frames])
            del self._waiting[: 2 * frames]
            self._played += len(audio)
        block[:] = audio.ljust(2 * frames, b"\0")
