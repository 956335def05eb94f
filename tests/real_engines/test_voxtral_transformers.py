"""Voxtral through transformers, tiny: the same tokens as the library, and the ears' features."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from deployments.audio import pcm_to_float
from deployments.interfaces import RATE, SpeechOptions
from deployments.transcriber.voxtral import max_tokens
from deployments.transcriber.voxtral_transformers import VoxtralTransformers
from deployments.transcriber.windows import spell
from tests.engine_contract import Heard, Loop, UnderstandingContract, hearing, loop, noise

__all__ = ["loop"]


class TestVoxtralTransformers(UnderstandingContract):
    @pytest.fixture(scope="class")
    @classmethod
    def engine(cls, loop: Loop, voxtral_transformers: Path) -> Iterator[Heard]:
        engine = VoxtralTransformers(str(voxtral_transformers), "cpu", 8, 1.0, 32, False)
        yield from hearing(loop, engine)

    def test_the_same_tokens_as_the_library(
        self, engine: Heard, loop: Loop, voxtral_transformers: Path
    ) -> None:
        import torch
        from transformers import AutoProcessor, VoxtralForConditionalGeneration

        processor = AutoProcessor.from_pretrained(voxtral_transformers)
        model = VoxtralForConditionalGeneration.from_pretrained(
            voxtral_transformers, dtype=torch.bfloat16
        )
        pcm = noise(4, 3)
        inputs = processor.apply_transcription_request(
            audio=[pcm_to_float(pcm)],
            format=["WAV"],
            sampling_rate=RATE,
            language="en",
            model_id=str(voxtral_transformers),
        ).to("cpu", dtype=torch.bfloat16)
        most = max_tokens(len(pcm) // 2)
        written = model.generate(**inputs, max_new_tokens=most, do_sample=False)
        tokens = written[0, inputs["input_ids"].shape[1] :].tolist()
        tokens = tokens[: tokens.index(2)] if 2 in tokens else tokens
        wanted = [word.text for word in spell(tokens, [0.0] * len(tokens), engine.engine._text)]
        heard = loop.run(engine.words(pcm, options=SpeechOptions(language="en")))
        assert [word.text for word in heard] == wanted and wanted

    def test_windows_of_many_go_in_one_batch(self, engine: Heard, loop: Loop) -> None:
        import asyncio

        async def go() -> int:
            batcher = engine.engine._batcher
            before = batcher.batches
            quiet = SpeechOptions(interim_results=False)
            said = [engine.words(noise(2, n), piece_s=5, options=quiet) for n in range(8)]
            await asyncio.gather(*said)
            return int(batcher.batches - before)

        assert loop.run(go()) <= 2

    def test_memory_that_runs_out_fails_one_request(
        self, engine: Heard, loop: Loop, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A batch that does not fit is tried one by one; what fits alone is answered."""
        it = engine.engine
        real = it._transcribe

        def scarce(jobs: Any) -> Any:
            if len(jobs) > 1 or len(jobs[0].item.audio) > 3 * RATE:
                raise MemoryError
            return real(jobs)

        monkeypatch.setattr(it, "_transcribe", scarce)
        quiet = SpeechOptions(interim_results=False)

        async def go() -> list[Any]:
            sizes = (2.0, 2.5, 3.5)
            keys = [await engine.say(noise(s), 5, options=quiet) for s in sizes]
            return [await engine.final(key) for key in keys]

        small, middle, large = loop.run(go())
        assert small.words and middle.words and not small.failure
        assert large.failure and "memory" in large.failure


def test_features_agree_with_librosa_and_vllm(voxtral_transformers: Path) -> None:
    """Log-mel: 128 mels, hop 160, window 400; transformers against librosa's to 2e-3, of values
    in about -1..2, float32; and against vLLM's filters to 1e-4."""
    import librosa
    import torch
    from mistral_common.audio import mel_filter_bank
    from transformers import AutoProcessor

    audio = pcm_to_float(noise(30, 1))
    processor = AutoProcessor.from_pretrained(voxtral_transformers)
    inputs = processor.apply_transcription_request(
        audio=[audio], format=["WAV"], sampling_rate=RATE, model_id="x"
    )
    ours = inputs["input_features"][0].numpy()
    spectrum = librosa.feature.melspectrogram(
        y=audio, sr=RATE, n_fft=400, hop_length=160, n_mels=128, pad_mode="reflect"
    )[:, :-1]
    theirs = scaled(np.log10(np.maximum(spectrum, 1e-10)))
    assert ours.shape == theirs.shape == (128, 3000)
    assert np.abs(ours - theirs).max() < 2e-3
    filters = torch.tensor(mel_filter_bank(201, 128, 0.0, 8000.0, RATE), dtype=torch.float32)
    power = (
        torch.stft(
            torch.from_numpy(audio), 400, 160, window=torch.hann_window(400), return_complex=True
        )[..., :-1].abs()
        ** 2
    )
    vllms = scaled(torch.clamp(filters.T @ power, min=1e-10).log10().numpy())
    assert np.abs(ours - vllms).max() < 1e-4


def scaled(log: Any) -> Any:
    """As Whisper scales its features."""
    return (np.maximum(log, log.max() - 8.0) + 4.0) / 4.0
