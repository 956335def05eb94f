"""Decoding: from a path or from a source that is asked, channels apart, noise taken away."""

import asyncio
import os
import socket
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest

from deployments.decoding import Bounds, Decoding, Info, Undecodable, decoding
from deployments.decoding.process import RANGE, _serve
from deployments.denoising import denoised
from deployments.interfaces import RATE
from loadtest.speech import wav
from tests.api.test_application import FORMATS, encoded
from tests.server import children
from tests.waiting import settled, until


class Bytes:
    """A `Source`; counts what it is asked for."""

    def __init__(self, body: bytes, fail_after: int = 1 << 60) -> None:
        self._body = body
        self._fail_after = fail_after
        self.size = len(body)
        self.read_bytes = 0

    async def read(self, start: int, end: int) -> bytes:
        self.read_bytes += end - start
        if self.read_bytes > self._fail_after:
            raise OSError("the store is away")
        return self._body[start:end]


def decoded(source: Path | Bytes, bounds: Bounds = Bounds(1000, 60)) -> tuple[Info, bytes]:  # noqa: B008
    async def go() -> tuple[Info, bytes]:
        async with decoding(source, bounds) as it:
            return it.info, b"".join([window async for window in it.windows()])

    return asyncio.run(go())


@pytest.mark.parametrize("name", FORMATS)
def test_a_source_is_read_as_a_file_is(talk: bytes, tmp_path: Path, name: str) -> None:
    body = encoded(talk, *FORMATS[name])
    file = tmp_path / "file"
    file.write_bytes(body)
    info, pcm = decoded(Bytes(body))
    assert (info, pcm) == decoded(file)
    assert info.channels == 1 and info.duration_s == pytest.approx(len(pcm) / 2 / RATE, abs=0.2)


def test_channels_stay_apart(talk: bytes) -> None:
    both = np.stack([np.frombuffer(talk, np.int16), np.zeros(len(talk) // 2, np.int16)], axis=1)
    info, pcm = decoded(Bytes(wav(both.tobytes(), channels=2)), Bounds(1000, 60, True))
    assert (info.channels, info.file_channels) == (2, 2) and pcm == both.tobytes()


@pytest.mark.parametrize("level", [100, 300])
def test_noise_is_taken_away_and_speech_stays_where_it_is(talk: bytes, level: int) -> None:
    clean = np.frombuffer(talk, np.int16).astype(np.float64)
    noisy = clean + np.random.default_rng(0).normal(0, level, len(clean))
    noise_db = 20 * np.log10(level / 32768)
    pcm = denoised(noisy.astype(np.int16).tobytes(), noise_db)
    cleaned = np.frombuffer(pcm, np.int16).astype(np.float64)
    assert len(cleaned) == len(clean)
    pause = slice(-9000, -2000)
    assert cleaned[pause].std() < 0.5 * noisy[pause].std()
    product = np.fft.irfft(np.fft.rfft(cleaned) * np.conj(np.fft.rfft(clean)))
    assert int(np.argmax(product)) == 0, "no sample late"


def test_a_source_that_fails_is_not_the_recordings_fault(talk: bytes) -> None:
    body = wav(talk * 4)
    for after in (0, 600_000):
        with pytest.raises(OSError, match="away"):
            decoded(Bytes(body, after))


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"RIFF",
        b"RIFF\x24\x00\x00\x00WAVEfmt " + bytes(40),
        b"OggS" + bytes(200),
        b"fLaC" + bytes(90),
        b"\xff\xfb" * 50,
    ],
)
def test_what_is_no_recording_is_said_to_be_none(body: bytes) -> None:
    with pytest.raises(Undecodable) as refused:
        decoded(Bytes(body))
    assert refused.value.code == "unreadable_audio"


def test_leaving_ends_the_process(talk: bytes) -> None:
    async def go() -> None:
        async with decoding(Bytes(wav(talk * 50)), Bounds(10_000, 60)) as it:
            assert isinstance(it, Decoding)
            await anext(it.windows())
            assert children("deployments.decoding.child")
        assert not children("deployments.decoding.child")

    asyncio.run(go())


def test_leaving_what_nobody_reads_leaves_nothing_behind(talk: bytes) -> None:
    """The pipe is full when its reader leaves."""

    async def go() -> None:
        before = psutil.Process().num_fds()
        source = Bytes(wav(talk * 50))
        async with asyncio.timeout(20), decoding(source, Bounds(10_000, 60)):
            await until(lambda: source.read_bytes)
            await asyncio.to_thread(settled, lambda: source.read_bytes)  # the pipe is full
        assert not children("deployments.decoding.child")
        assert psutil.Process().num_fds() <= before

    asyncio.run(go())


class Silent(Bytes):
    """Never gives what it is asked for."""

    async def read(self, start: int, end: int) -> bytes:
        await asyncio.Event().wait()
        return b""


@pytest.mark.parametrize("of", ["a path", "a source"])
def test_a_decoder_that_only_waits_is_not_waited_for(of: str, tmp_path: Path) -> None:
    """It uses no processor time, so that bound never ends it."""
    pipe = tmp_path / "nobody-writes"
    os.mkfifo(pipe)
    bounds = Bounds(60, 60, wait_s=0.5)

    async def go() -> None:
        async with asyncio.timeout(20):
            with pytest.raises(Undecodable) as refused:
                async with decoding(pipe if of == "a path" else Silent(b"RIFF"), bounds):
                    pass
        assert refused.value.code == "decode_timeout"
        assert not children("deployments.decoding.child")

    asyncio.run(go())


SAYS = {
    "4 GiB announced": "out.write(b'\\xff' * 8)",
    "not Info": "out.write(frame(b'{}'))",
    "a billion channels": 'out.write(frame(b\'["wav","pcm",8000,1,1000000000,null]\'))',
    "another error code": 'err.write(b\'["internal_error","boo"]\'); sys.exit(1)',
    "an endless complaint": "\nwhile True: err.write(b'x' * 9999)",
}


@pytest.mark.parametrize("says", SAYS.values(), ids=SAYS)
def test_what_a_hostile_decoder_says_is_data_or_nothing(
    says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hostile = tmp_path / "python"
    hostile.write_text(
        f"#!{sys.executable}\nimport sys\nfrom deployments.framing import frame\n"
        f"out, err = sys.stdout.buffer, sys.stderr.buffer\n{says}\n"
    )
    hostile.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(hostile))
    with pytest.raises(Undecodable) as refused:
        decoded(Bytes(b"RIFF"))
    assert refused.value.code == "unreadable_audio"
    assert str(refused.value) == "the recording could not be decoded"


@pytest.mark.parametrize("asked", [(0, 1 << 31), (1 << 40, 4), (2, 3)])
def test_a_decoder_gets_no_bytes_that_are_not_there(asked: tuple[int, int]) -> None:
    async def go() -> bytes:
        ours, theirs = socket.socketpair()
        reader, writer = await asyncio.open_connection(sock=theirs)
        writer.write(RANGE.pack(*asked))
        async with asyncio.timeout(10):
            _, told = await asyncio.gather(_serve(Bytes(b"RIFF"), ours), reader.read())
        writer.close()
        return told

    assert asyncio.run(go()) == b""
