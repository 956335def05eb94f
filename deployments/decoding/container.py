"""Files of many formats, opened by FFmpeg: which are taken, and what they say of themselves."""

from pathlib import Path
from typing import Any, BinaryIO

from deployments.decoding.limits import (
    MAX_CHANNELS,
    MAX_FILE_RATE,
    MIN_FILE_RATE,
    Info,
    Undecodable,
)

FORMATS = frozenset(
    "wav,flac,mp3,ogg,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,aac,aiff,caf,w64,amr".split(",")
)
"""FFmpeg demuxers that read one file and nothing else: no playlists, no network."""

ONE_FILE = {"protocol_whitelist": "file"}
NO_FILE = {"protocol_whitelist": "none"}


def opened(file: Path | BinaryIO) -> Any:
    import av

    if isinstance(file, Path):
        return av.open(str(file), metadata_errors="ignore", options=ONE_FILE)
    return av.open(file, metadata_errors="ignore", options=NO_FILE)


def info_of(container: Any, stream: Any, channels: int) -> Info:
    duration = container.duration / 1_000_000 if container.duration else None
    codec = stream.codec_context.name
    name = container.format.name.split(",")[0]
    return Info(name, codec, stream.rate, stream.channels, channels, duration)


def duration_s(path: Path) -> float | None:
    """Seconds the file says it lasts, where it says so."""
    import av

    try:
        with opened(path) as file:
            return file.duration / 1_000_000 if file.duration else None
    except av.FFmpegError:
        return None


def audio_stream(file: Any) -> Any:
    if not FORMATS.intersection(file.format.name.split(",")):
        raise Undecodable("unreadable_audio", f"format {file.format.name} is not taken")
    if not file.streams.audio:
        raise Undecodable("unreadable_audio", "the file holds no audio")
    stream = file.streams.audio[0]
    if stream.channels > MAX_CHANNELS:
        raise Undecodable(
            "too_many_channels", f"{stream.channels} channels; at most {MAX_CHANNELS} are taken"
        )
    if not MIN_FILE_RATE <= (stream.rate or 0) <= MAX_FILE_RATE:
        raise Undecodable(
            "unreadable_audio", f"a rate of {stream.rate} Hz is not from 4000 to 192000"
        )
    return stream
