"""Voice activity detection: the WebRTC VAD on each frame, and endpointing on its flags.

Endpointing is pure and independent of the VAD; `Vad` keeps one of each for each session of each
lane.
"""

from collections.abc import Callable, Sequence
from typing import Any

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    Edge,
    Resume,
    Transition,
    VadInput,
    VadResult,
)
from deployments.lanes import Lane, LaneModel

FRAME_MS = 20
FRAME_SAMPLES = RATE * FRAME_MS // 1000
FRAME_BYTES = FRAME_SAMPLES * BYTES_PER_SAMPLE

IsSpeech = Callable[[bytes, int], bool]


def voiced(is_speech: IsSpeech, pcm: bytes) -> list[bool]:
    """One flag for each whole frame of 16 kHz pcm_s16le."""
    whole = len(pcm) - len(pcm) % FRAME_BYTES
    return [is_speech(pcm[at : at + FRAME_BYTES], RATE) for at in range(0, whole, FRAME_BYTES)]


class Endpointing:
    """Turns flags, one a frame, into transitions.

    Speech starts when `min_speech` frames in a row are voiced, and is dated back to the first
    of them. It ends when `min_silence` frames in a row are not, dated to the end of that silence,
    so that an utterance's audio includes its trailing silence, which recognisers need. Before that
    it pauses after `pause` frames of silence, and is confirmed after `confirm` of voice.
    """

    __slots__ = (
        "_confirm",
        "_confirmed",
        "_min_silence",
        "_min_speech",
        "_pause",
        "_run",
        "_voice",
        "sample",
        "speaking",
    )

    def __init__(self, resume: Resume) -> None:
        _, min_speech, min_silence, pause, confirm = resume.endpoint
        self._min_speech = max(1, min_speech // FRAME_MS)
        self._min_silence = max(1, min_silence // FRAME_MS)
        self._pause = pause // FRAME_MS
        self._confirm = max(confirm // FRAME_MS, self._min_speech) if confirm else 0
        self.sample = resume.sample
        """The end of the last frame."""
        self.speaking = resume.speaking
        self._run = 0
        """Consecutive frames that contradict the present state."""
        self._voice = 0
        """Voiced frames of this speech."""
        self._confirmed = False

    def on(self, voiced: bool) -> Transition | None:
        self.sample += FRAME_SAMPLES
        return self._in_speech(voiced) if self.speaking else self._in_silence(voiced)

    def _in_silence(self, voiced: bool) -> Transition | None:
        self._run = self._run + 1 if voiced else 0
        if self._run < self._min_speech:
            return None
        start = self.sample - self._run * FRAME_SAMPLES
        self.speaking, self._voice, self._run = True, self._run, 0
        self._confirmed = False
        return Transition(Edge.START, start)

    def _in_speech(self, voiced: bool) -> Transition | None:
        if voiced:
            return self._on_voice()
        self._run += 1
        if self._run >= self._min_silence:
            self.speaking, self._run = False, 0
            return Transition(Edge.END, self.sample)
        return Transition(Edge.PAUSE, self.sample) if self._run == self._pause else None

    def _on_voice(self) -> Transition | None:
        paused = 0 < self._pause <= self._run
        self._run = 0
        self._voice += 1
        if paused:
            return Transition(Edge.RESUME, self.sample)
        if self._confirmed or not self._confirm or self._voice < self._confirm:
            return None
        self._confirmed = True
        return Transition(Edge.CONFIRMED, self.sample)


class _VadSession:
    """The state of one session: VAD, endpointing, and the beginning of an incomplete frame."""

    __slots__ = ("_endpointing", "_is_speech", "_rest")

    def __init__(self, is_speech: IsSpeech, endpointing: Endpointing) -> None:
        self._is_speech = is_speech
        self._endpointing = endpointing
        self._rest = b""

    def detect(self, session: int, pcm: bytes) -> VadResult:
        if self._rest:
            pcm = self._rest + pcm
        flags = voiced(self._is_speech, pcm)
        self._rest = pcm[len(flags) * FRAME_BYTES :]
        transitions = tuple(filter(None, map(self._endpointing.on, flags)))
        until = self._endpointing.sample + len(self._rest) // BYTES_PER_SAMPLE
        return VadResult(session, until, transitions, True in flags)


class Vad(LaneModel[VadInput, _VadSession, VadResult]):
    """The engine `webrtc`; `exchange` returns the answers."""

    name = "webrtc"

    def __init__(self) -> None:
        import webrtcvad

        super().__init__()
        self._new_vad: Callable[[int], Any] = webrtcvad.Vad

    async def take(
        self, here: Lane[_VadSession, VadResult], batch: Sequence[VadInput]
    ) -> Sequence[VadResult]:
        """One answer for each item of the batch, in the same order. Raises `LaneLost`."""
        return [self._session(here, piece).detect(piece.session, piece.pcm) for piece in batch]

    def _session(self, here: Lane[_VadSession, VadResult], piece: VadInput) -> _VadSession:
        if piece.resume:
            vad = self._new_vad(piece.resume.endpoint.aggressiveness)
            here.sessions[piece.session] = _VadSession(vad.is_speech, Endpointing(piece.resume))
        return here.work(piece.session)
