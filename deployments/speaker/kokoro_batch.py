"""Kokoro for a padded batch of clauses: each sounds as if it were spoken alone.

The library speaks one clause per call. Its layers accept batches, but padding would be audible.
This module prevents that from outside: convolutions get silence for padding, norms exclude it from
their mean, recurrent layers end where the clause does. The excitation's noise comes from a seed for
each clause, so that a clause sounds the same in every batch.

Architecture: StyleTTS 2 with an iSTFTNet vocoder (Li et al. 2023; Kaneko et al. 2022), as in
github.com/hexgrad/kokoro. All shapes are (batch, channels, time); time is in frames of 1/40 s, or
in a whole multiple of them plus a constant.
"""

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from kokoro import KModel
from kokoro.istftnet import AdaIN1d, SineGen, TorchSTFT
from torch import Tensor, nn
from torch.nn.utils.rnn import pack_padded_sequence, pad_packed_sequence

SAMPLES_A_FRAME = 600


class PhonemeClause(NamedTuple):
    ids: Sequence[int]
    """Of phonemes, in the model's vocabulary."""
    style: Any
    """The voice's row for this number of phonemes: float32 (1, 256)."""
    speed: float
    seed: int


class Padding:
    """The length of each clause in the current batch, in frames."""

    def __init__(self) -> None:
        self.frames: Tensor | None = None
        """None when all clauses are equally long."""
        self.lengths: list[int] = []
        self._masks: dict[int, Tensor] = {}

    def set(self, lengths: list[int], device: torch.device) -> None:
        alike = len(set(lengths)) == 1
        self.lengths = lengths
        self.frames = None if alike else torch.tensor(lengths, device=device)
        self._masks.clear()

    def times(self, time: int) -> Tensor:
        """The clauses' lengths in a layer where the longest has `time` steps."""
        assert self.frames is not None
        longest = max(self.lengths)
        return time - (longest - self.frames) * (time // longest)

    def mask(self, time: int) -> Tensor:
        """1 inside a clause, 0 in its padding: float32 (batch, 1, time)."""
        if time not in self._masks:
            steps = torch.arange(time, device=self.times(time).device)
            self._masks[time] = (steps < self.times(time)[:, None]).float()[:, None]
        return self._masks[time]

    def silenced(self, x: Tensor) -> Tensor:
        return x if self.frames is None else x * self.mask(x.shape[-1])


class KokoroBatch:
    """`model` is modified: for a single clause only its noise changes, which comes from the seed.

    The vocoder, nearly all of the work, takes the clauses `together` or one by one: a CPU's caches
    hold the activations of one clause, and 16 together take 1.5 times as long.
    """

    def __init__(self, model: KModel, together: bool) -> None:
        self._model = model
        self._together = together
        self._padding = Padding()
        self._sine = _Sine(model.decoder.generator.m_source.l_sin_gen, self._padding)
        model.decoder.generator.m_source.l_sin_gen = self._sine
        model.decoder.generator.stft = _Stft(model.decoder.generator.stft, self._padding)
        predictor = model.predictor
        for part in (predictor.F0, predictor.N, predictor.F0_proj, predictor.N_proj, model.decoder):
            self._patch(part)

    def _patch(self, part: nn.Module) -> None:
        for module in part.modules():
            if isinstance(module, nn.Conv1d | nn.ConvTranspose1d):
                module.register_forward_pre_hook(self._silence)
            elif isinstance(module, AdaIN1d):
                module.forward = _Norm(module, self._padding)

    def _silence(self, _: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        return (self._padding.silenced(inputs[0]), *inputs[1:])

    @torch.inference_mode()
    def speak(self, clauses: Sequence[PhonemeClause]) -> list[Any]:
        """float32 samples at 24 kHz of each clause."""
        model, device = self._model, self._model.device
        ids, lengths = self._padded(clauses)
        speed = torch.tensor([clause.speed for clause in clauses], device=device)
        style = torch.cat([clause.style for clause in clauses]).to(device)
        pad = torch.arange(ids.shape[1], device=device) >= lengths[:, None].to(device)
        hidden = model.bert(ids, attention_mask=(~pad).int())
        encoded = model.bert_encoder(hidden).transpose(-1, -2)
        prosody = model.predictor.text_encoder(encoded, style[:, 128:], lengths, pad)
        alignment = self._alignment(prosody, lengths, pad, speed)
        pitch, energy = self._pitch(prosody.transpose(-1, -2) @ alignment, style[:, 128:])
        text = model.text_encoder(ids, lengths, pad) @ alignment
        seeds = [clause.seed for clause in clauses]
        return self._sound((text, pitch, energy, style[:, :128]), seeds)

    def _sound(self, features: tuple[Tensor, ...], seeds: list[int]) -> list[Any]:
        lengths = self._padding.lengths
        if self._together or len(seeds) == 1:
            self._sine.seeds = seeds
            sound = self._model.decoder(*features)
            return [
                samples[0, : frames * SAMPLES_A_FRAME].float().cpu().numpy()
                for samples, frames in zip(sound, lengths, strict=True)
            ]
        sounds = []
        text, pitch, energy, style = features
        for row, (frames, seed) in enumerate(zip(lengths, seeds, strict=True)):
            at = slice(row, row + 1)
            self._padding.set([frames], text.device)
            alone = (text[at, :, :frames], pitch[at, : 2 * frames], energy[at, : 2 * frames])
            sounds += self._sound((*alone, style[at]), [seed])
        return sounds

    def _padded(self, clauses: Sequence[PhonemeClause]) -> tuple[Tensor, Tensor]:
        """Ids (batch, time), with a 0 before and after each clause, padded with 0; and lengths,
        on the CPU."""
        rows = [torch.tensor([0, *clause.ids, 0]) for clause in clauses]
        lengths = torch.tensor([len(row) for row in rows])
        ids = nn.utils.rnn.pad_sequence(rows, batch_first=True)
        return ids.to(self._model.device), lengths

    def _alignment(self, prosody: Tensor, lengths: Tensor, pad: Tensor, speed: Tensor) -> Tensor:
        """The frames of each phoneme: 0 or 1, (batch, phonemes, frames)."""
        predictor = self._model.predictor
        steps = _recurrent(predictor.lstm, prosody, lengths)
        spans = torch.sigmoid(predictor.duration_proj(steps)).sum(-1) / speed[:, None]
        spans = torch.round(spans).clamp(min=1).long().masked_fill(pad, 0)
        self._padding.set(spans.sum(-1).tolist(), spans.device)
        ends = spans.cumsum(-1)[..., None]
        frames = torch.arange(max(self._padding.lengths), device=spans.device)
        return ((frames >= ends - spans[..., None]) & (frames < ends)).float()

    def _pitch(self, x: Tensor, style: Tensor) -> tuple[Tensor, Tensor]:
        """Pitch in Hz and energy, (batch, 2 x frames), 0 in the padding."""
        predictor, lengths = self._model.predictor, torch.tensor(self._padding.lengths)
        shared = _recurrent(predictor.shared, x.transpose(-1, -2), lengths).transpose(-1, -2)
        curves = []
        for blocks, last in (
            (predictor.F0, predictor.F0_proj),
            (predictor.N, predictor.N_proj),
        ):
            curve = shared
            for block in blocks:
                curve = block(curve, style)
            curves.append(self._padding.silenced(last(curve)).squeeze(1))
        return curves[0], curves[1]


def _recurrent(layer: nn.LSTM, x: Tensor, lengths: Tensor) -> Tensor:
    """(batch, time, channels) through a recurrent layer that stops at the end of each clause."""
    layer.flatten_parameters()
    packed = pack_padded_sequence(x, lengths, batch_first=True, enforce_sorted=False)
    steps: Tensor = pad_packed_sequence(layer(packed)[0], True, total_length=x.shape[1])[0]
    return steps


class _Norm:
    """`AdaIN1d.forward` with the mean and variance of the clause without its padding."""

    def __init__(self, layer: Any, padding: Padding) -> None:
        self._layer = layer
        self._padding = padding

    def __call__(self, x: Tensor, style: Tensor) -> Tensor:
        gamma, beta = self._layer.fc(style)[..., None].chunk(2, dim=1)
        mean, variance, x = self._moments(x)
        norm = self._layer.norm
        scale = (1 + gamma) * norm.weight[:, None] * torch.rsqrt(variance + norm.eps)
        shift = (1 + gamma) * norm.bias[:, None] + beta - mean * scale
        return torch.addcmul(shift, x, scale)

    def _moments(self, x: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        if self._padding.frames is None:
            variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
            return mean, variance, x
        time = x.shape[-1]
        x = self._padding.silenced(x)
        share = (time / self._padding.times(time))[:, None, None]
        variance, mean = torch.var_mean(x, dim=-1, correction=0, keepdim=True)
        square = (variance + mean.square()) * share
        mean = mean * share
        return mean, (square - mean.square()).clamp(min=0), x


class _Sine(nn.Module):
    """`SineGen` with noise from one seed per clause."""

    def __init__(self, layer: SineGen, padding: Padding) -> None:
        super().__init__()
        self._layer = layer
        self._padding = padding
        self.seeds: list[int] = []

    def forward(self, pitch: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """`pitch` in Hz, (batch, samples, 1)."""
        layer = self._layer
        harmonics = pitch * torch.arange(1, layer.dim + 1, device=pitch.device)
        waves = layer._f02sine(harmonics) * layer.sine_amp
        voiced = layer._f02uv(pitch)
        level = voiced * layer.noise_std + (1 - voiced) * layer.sine_amp / 3
        noise = level * self._noise(waves)
        return waves * voiced + noise, voiced, noise

    def _noise(self, waves: Tensor) -> Tensor:
        noise = torch.zeros_like(waves)
        for row, seed, frames in zip(noise, self.seeds, self._padding.lengths, strict=True):
            random = torch.Generator(waves.device).manual_seed(seed)
            samples = frames * SAMPLES_A_FRAME
            row[:samples] = torch.randn(
                samples, waves.shape[-1], generator=random, device=waves.device
            )
        return noise


class _Stft(nn.Module):
    """`TorchSTFT` for each clause alone, so that its own edges are reflected, not the padding's.

    A reflected edge is symmetric, so its spectrum is real and its phase is 0 or pi. Rounding
    would choose between pi and -pi, differently in each batch, and audibly.
    """

    def __init__(self, layer: TorchSTFT, padding: Padding) -> None:
        super().__init__()
        self._layer = layer
        self._padding = padding

    def transform(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        if self._padding.frames is None:
            return self._transform(samples)
        parts = [
            self._transform(row[None, : frames * SAMPLES_A_FRAME])
            for row, frames in zip(samples, self._padding.lengths, strict=True)
        ]
        return _stacked([part[0] for part in parts]), _stacked([part[1] for part in parts])

    def _transform(self, samples: Tensor) -> tuple[Tensor, Tensor]:
        magnitude, phase = self._layer.transform(samples)
        for edge in (0, -1):
            phase[..., edge] = phase[..., edge].abs()
        return magnitude, phase

    def inverse(self, magnitude: Tensor, phase: Tensor) -> Tensor:
        if self._padding.frames is None:
            return self._layer.inverse(magnitude, phase)
        ends = self._padding.times(magnitude.shape[-1]).tolist()
        return _stacked(
            [
                self._layer.inverse(
                    magnitude[row : row + 1, :, :end], phase[row : row + 1, :, :end]
                )
                for row, end in enumerate(ends)
            ]
        )


def _stacked(rows: list[Tensor]) -> Tensor:
    """Rows (1, channels, time) of different lengths as one batch, padded with 0."""
    longest = max(row.shape[-1] for row in rows)
    return torch.cat([nn.functional.pad(row, (0, longest - row.shape[-1])) for row in rows])
