"""Streamed speech as mp3, opus, aac, flac, wav or raw pcm, with FFmpeg (PyAV).

Every chunk of input returns the bytes that can be played so far. The length of a stream is not
known at its start, so a WAV header has the largest possible one, as usual for streamed WAVs.
"""

import io
from typing import Any, Literal, NamedTuple

import numpy as np

from deployments.audio import wav_header
from deployments.interfaces import VOICE_RATE

SpeechFormat = Literal["mp3", "opus", "aac", "flac", "wav", "pcm"]

MEDIA_TYPES: dict[str, str] = {
    "mp3": "audio/mpeg",
    "opus": "audio/ogg",
    "aac": "audio/aac",
    "flac": "audio/flac",
    "wav": "audio/wav",
    "pcm": "audio/pcm",
}


class _Codec(NamedTuple):
    container: str
    codec: str
    rate: int
    sample_format: str
    bit_rate: int | None
    options: dict[str, str] = {}  # noqa: RUF012


CODECS = {
    "mp3": _Codec("mp3", "libmp3lame", VOICE_RATE, "s16p", 64_000),
    "opus": _Codec("ogg", "libopus", VOICE_RATE, "s16", 32_000, {"page_duration": "100000"}),
    "aac": _Codec("adts", "aac", VOICE_RATE, "fltp", 64_000),
    "flac": _Codec("flac", "flac", VOICE_RATE, "s16", None),
}


class Encoder:
    """One stream of speech: mono pcm_s16le at `VOICE_RATE` in, bytes of a file out."""

    def __init__(self, format_: SpeechFormat) -> None:
        self._header = wav_header(VOICE_RATE) if format_ == "wav" else b""
        self._codec = CODECS.get(format_)
        self._out = _Pipe()
        if self._codec:
            self._open(self._codec)

    def push(self, pcm: bytes) -> bytes:
        if not self._codec:
            header, self._header = self._header, b""
            return header + pcm
        for frame in self._resampler.resample(self._frame(pcm)) if pcm else ():
            self._container.mux(self._stream.encode(frame))
        return self._out.take()

    def finish(self) -> bytes:
        """The end of the file."""
        if not self._codec:
            return self.push(b"")
        for frame in self._resampler.resample(None):
            self._container.mux(self._stream.encode(frame))
        self._container.mux(self._stream.encode(None))
        self._container.close()
        return self._out.take()

    def _open(self, codec: _Codec) -> None:
        import av

        self._container: Any = av.open(
            self._out,
            "w",
            format=codec.container,
            options={"flush_packets": "1"} | codec.options,
        )
        stream: Any = self._container.add_stream(codec.codec, rate=codec.rate)
        self._stream = stream
        stream.codec_context.layout = "mono"
        stream.codec_context.format = codec.sample_format
        if codec.bit_rate:
            stream.bit_rate = codec.bit_rate
        self._resampler = av.AudioResampler(codec.sample_format, "mono", codec.rate)
        self._pts = 0

    def _frame(self, pcm: bytes) -> Any:
        import av

        samples = np.frombuffer(pcm, "<i2").reshape(1, -1)
        frame = av.AudioFrame.from_ndarray(samples, "s16", "mono")
        frame.sample_rate = VOICE_RATE
        frame.pts = self._pts
        self._pts += samples.shape[1]
        return frame


class _Pipe(io.RawIOBase):
    """FFmpeg's output. It cannot seek, so that no format waits for the end."""

    def __init__(self) -> None:
        self._bytes = bytearray()

    def writable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return False

    def write(self, data: Any) -> int:
        self._bytes += data
        return len(data)

    def take(self) -> bytes:
        taken = bytes(self._bytes)
        self._bytes.clear()
        return taken
