"""What a recording is, by its content; never by its name."""

import random

import pytest

from serve_app.errors import ClientError
from serve_app.jobs.media import ALLOWED, EXTENSIONS, HEAD_BYTES, download_name, media_type
from tests.api.test_application import encoded


def found(head: bytes) -> str:
    try:
        return media_type(head[:HEAD_BYTES])
    except ClientError as error:
        assert error.code == "unsupported_media"
        return ""


@pytest.mark.parametrize(
    ("container", "codec", "type_"),
    [
        ("wav", "pcm_s16le", "audio/wav"),
        ("wav", "pcm_mulaw", "audio/wav"),
        ("flac", "flac", "audio/flac"),
        ("mp3", "libmp3lame", "audio/mpeg"),
        ("mp2", "mp2", "audio/mpeg"),
        ("ogg", "libopus", "audio/ogg"),
        ("webm", "libopus", "audio/webm"),
        ("matroska", "flac", "audio/webm"),
        ("mp4", "aac", "audio/mp4"),
        ("adts", "aac", "audio/aac"),
        ("aiff", "pcm_s16be", "audio/aiff"),
        ("caf", "pcm_s16be", "audio/x-caf"),
        ("w64", "pcm_s16le", "audio/x-w64"),
    ],
)
def test_each_format(talk: bytes, container: str, codec: str, type_: str) -> None:
    content = encoded(talk, container, codec)
    assert found(content) == type_
    if container == "mp3":
        tag = content.index(b"\xff\xfb", 10)
        assert found(content[tag:]) == type_, "without the tag before it"


@pytest.mark.parametrize("seed", range(4))
def test_random_bytes_are_no_recording(seed: int) -> None:
    """Also if they begin as a frame does."""
    noise = random.Random(seed)
    for _ in range(2000):
        rest = noise.randbytes(noise.choice((2, 40, 400, HEAD_BYTES)))
        assert not found(rest)
        for start in (b"\xff\xfb\x90\x00", b"\xff\xf1\x50\x80", b"\xff\xe3\x18\xc4", b"\xff\xf9"):
            assert not found(start + rest)


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\xff",
        b"\xff\xfb",
        b"\xff\xfb\x90\x00",
        "a text".encode("utf-16"),
        b"\xff\xfe" + "Ünï".encode("utf-16-le") * 2000,
        b"\xff" * HEAD_BYTES,
        b"\xff\xd8\xff\xe0\x00\x10JFIF" + bytes(500),
        b"RIFF\0\0\0\0AVI LIST",
        b"RIFF\0\0\0\0WEBPVP8 ",
        b"FORM\0\0\0\0ILBM",
        b"MZ" + bytes(500),
        b"%PDF-1.7",
        b"<svg xmlns='http://www.w3.org/2000/svg' onload='alert(1)'/>",
        b"riffraff",
    ],
)
def test_other_files_are_none(head: bytes) -> None:
    assert not found(head)


@pytest.mark.parametrize(
    ("name", "type_", "expected"),
    [
        ("talk.wav", "audio/wav", "talk.wav"),
        ("talk.WAV", "audio/wav", "talk.WAV"),
        ("talk.opus", "audio/ogg", "talk.opus"),
        ("talk.mkv", "audio/webm", "talk.mkv"),
        ("invoice.exe", "audio/wav", "invoice.exe.wav"),
        ("page.html", "audio/mpeg", "page.html.mp3"),
        ("talk", "audio/mp4", "talk.m4a"),
        ("wav", "audio/wav", "wav.wav"),
        ("", "audio/wav", ".wav"),
        ("2026.11.30", "audio/flac", "2026.11.30.flac"),
    ],
)
def test_a_download_has_an_extension_of_its_type(name: str, type_: str, expected: str) -> None:
    assert download_name(name, type_) == expected


def test_every_format_has_a_type() -> None:
    assert set(ALLOWED.split(", ")) <= {it for known in EXTENSIONS.values() for it in known}
