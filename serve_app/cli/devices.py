"""Microphone and loudspeaker, where there are some."""

import asyncio
import contextlib
import threading
import time
from collections.abc import AsyncIterator
from typing import Any

from serve_app.cli import console

MAX_BLOCKED_S = 10
"""Past that the newest audio is dropped, and that is said."""


class NoDevice(Exception):
    """Neither a device nor the library to reach one."""


def _sounddevice(wanted: str) -> Any:
    try:
        import sounddevice
    except OSError as error:
        raise NoDevice(
            f"no {wanted}: the PortAudio library is not installed (libportaudio2)"
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
        console.print("[yellow]the server does not keep up: a block of audio was dropped")

    def heard(block: Any, *_: Any) -> None:
        loop.call_soon_threadsafe(put, bytes(block))

    until = time.monotonic() + seconds if seconds else float("inf")
    try:
        stream = sounddevice.RawInputStream(
            rate, rate * block_ms // 1000, channels=1, dtype="int16", callback=heard
        )
    except (sounddevice.PortAudioError, ValueError) as error:
        raise NoDevice("no microphone: no input device was found") from error
    with stream:
        while time.monotonic() < until:
            yield await blocks.get()


class Loudspeaker:
    """Plays as fast as it can be heard; what waits can be thrown away. Raises `NoDevice`."""

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
            raise NoDevice("no loudspeaker: no output device was found") from error
        self._stream.start()

    def play(self, pcm: bytes) -> None:
        with self._lock:
            self._waiting += pcm

    def stop(self) -> int:
        """Silence, at once; the ms that were played since the last time."""
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
