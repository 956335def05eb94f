"""The media type of a file, from its content. Pure.

Only the decoder knows for certain; this rejects obvious mistakes early, and sets the type and the
extension with which a recording is downloaded: never those that its sender chose.
"""

from serve_app.errors import ClientError
from serve_app.jobs.sync_frames import adts_bytes, is_stream, mpeg_bytes

HEAD_BYTES = 8200
"""The longest frame of a stream, and the header of the next."""

EBML, OGG = b"\x1a\x45\xdf\xa3", b"OggS"

STARTS: tuple[tuple[bytes, str], ...] = (
    (b"fLaC", "audio/flac"),
    (OGG, "audio/ogg"),
    (EBML, "audio/webm"),
    (b"ID3", "audio/mpeg"),
    (b"#!AMR", "audio/amr"),
    (b"caff", "audio/x-caf"),
    (b"riff\x2e\x91\xcf\x11", "audio/x-w64"),
)

EXTENSIONS: dict[str, tuple[str, ...]] = {
    "audio/wav": ("wav", "wave"),
    "audio/flac": ("flac",),
    "audio/mpeg": ("mp3", "mp2", "mpga"),
    "audio/ogg": ("ogg", "oga", "opus"),
    "audio/webm": ("webm", "weba", "mkv", "mka"),
    "audio/mp4": ("m4a", "mp4", "m4b", "mov", "3gp", "3g2"),
    "audio/aac": ("aac",),
    "audio/aiff": ("aiff", "aif", "aifc"),
    "audio/x-caf": ("caf",),
    "audio/x-w64": ("w64",),
    "audio/amr": ("amr",),
}
"""What a file of the type may be called; the first unless its name has one of them."""

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
    if is_stream(head, mpeg_bytes):
        return "audio/mpeg"
    if is_stream(head, adts_bytes):
        return "audio/aac"
    raise ClientError(
        "unsupported_media", f"this is not a recording; supported formats are {ALLOWED}"
    )


def download_name(name: str, type_: str) -> str:
    """The file's name, with an extension of its type: a program is not opened by its name."""
    known = EXTENSIONS.get(type_, ("bin",))
    extension = name.rpartition(".")[2].lower() if "." in name else ""
    return name if extension in known else f"{name}.{known[0]}"
