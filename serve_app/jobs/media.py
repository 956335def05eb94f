"""The media type of a file, from its first bytes. Pure.

Only the decoder knows for certain; this rejects obvious mistakes early, and sets the type with
which a recording is downloaded: never one that its sender chose.
"""

from serve_app.errors import ClientError

HEAD_BYTES = 64
EBML, OGG = b"\x1a\x45\xdf\xa3", b"OggS"

STARTS: tuple[tuple[bytes, str], ...] = (
    (b"fLaC", "audio/flac"),
    (OGG, "audio/ogg"),
    (EBML, "audio/webm"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"caff", "audio/x-caf"),
    (b"riff", "audio/x-w64"),
)
ALLOWED = "wav, flac, mp3, ogg, opus, webm, mkv, m4a, mp4, aac, aiff, caf, w64, amr"


def media_type(head: bytes) -> str:
    """The media type of a file that begins with `head`. Raises `ClientError`."""
    for start, found in STARTS:
        if head.startswith(start):
            return found
    if head[:4] in (b"RIFF", b"RF64") and head[8:12] == b"WAVE":
        return "audio/wav"
    if head[:4] == b"FORM" and head[8:12] in (b"AIFF", b"AIFC"):
        return "audio/aiff"
    if head[4:8] == b"ftyp":
        return "audio/mp4"
    if len(head) > 1 and head[0] == 0xFF and head[1] & 0xE0 == 0xE0:
        return "audio/aac" if head[1] & 0x06 == 0 else "audio/mpeg"
    raise ClientError(
        "unsupported_media", f"this is not a recording; supported formats are {ALLOWED}"
    )
