import io

import numpy as np
import pytest
import soundfile
import soxr
from hypothesis import given
from hypothesis import strategies as st

from deployments.audio import Encoding, InputConverter, float_to_int16, mix, to_int16


@pytest.mark.parametrize(("encoding", "subtype"), [("mulaw", "ULAW"), ("alaw", "ALAW")])
def test_every_g711_code_expands_as_libsndfile_expands_it(encoding: Encoding, subtype: str) -> None:
    codes = bytes(range(256))
    expected, _ = soundfile.read(
        io.BytesIO(codes), dtype="int16", samplerate=8000, channels=1, format="RAW", subtype=subtype
    )
    assert to_int16(codes, encoding).tolist() == expected.tolist()


def test_floats_are_clipped_and_nan_is_silence() -> None:
    floats = np.array([0.0, 1.0, -1.0, 2.0, np.nan, np.inf, 0.5], "<f4")
    assert float_to_int16(floats).tolist() == [0, 32767, -32768, 32767, 0, 32767, 16384]


def test_stereo_is_averaged_without_overflow() -> None:
    loud = np.array([32767, 32767, -32768, -32768, 100, 200], np.int16)
    assert mix(loud, 2).tolist() == [32767, -32768, 150]


@pytest.mark.parametrize("rate", [8000, 11025, 22050, 44100, 48000])
@pytest.mark.parametrize("chunk", [80, 441, 4096])
def test_chunks_resample_as_the_whole_does(rate: int, chunk: int) -> None:
    tone = (np.sin(np.arange(rate) * 2 * np.pi * 440 / rate) * 8000).astype(np.int16)
    intake = InputConverter(rate, "pcm_s16le", 1)
    pieces = [intake.push(tone[at : at + chunk].tobytes()) for at in range(0, len(tone), chunk)]
    got = np.frombuffer(b"".join([*pieces, intake.flush()]), np.int16)
    quality = "LQ" if rate < 16_000 else "HQ"
    floats = soxr.resample(tone.astype(np.float32) / 32768, rate, 16_000, quality=quality)
    expected = float_to_int16(floats)
    assert len(got) == len(expected)
    assert np.abs(got.astype(int) - expected.astype(int)).max() <= 1


@given(st.binary(max_size=400).filter(lambda pcm: len(pcm) % 2 == 0))
def test_what_is_ours_already_passes_untouched(pcm: bytes) -> None:
    assert InputConverter(16_000, "pcm_s16le", 1).push(pcm) == pcm
