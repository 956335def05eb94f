"""Voice activity detection: the WebRTC VAD on each frame, and endpointing on its flags.

Endpointing is pure and independent of the VAD; `Vad` keeps one of each for each session of each
lane. The WebRTC VAD adapts to what it hears, without end. At an END, and from time to time in
silence, a session gets a fresh one, which hears the last half second again: from there on, what is
found depends only on the audio since then, and a session can be resumed exactly.
"""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from deployments.interfaces import (
    BYTES_PER_SAMPLE,
    RATE,
    RECALL,
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
RECALL_BYTES = RECALL * BYTES_PER_SAMPLE

REST_EVERY = 5 * RATE
"""Samples of silence after which there is a REST."""

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
        "_rested",
        "_run",
        "_voice",
        "sample",
        "speaking",
    )

    def __init__(self, resume: Resume) -> None:
        _, min_speech, min_silence, pause, confirm = resume.endpoint
        self._rested = max(resume.sample, resume.deaf_until)
        """The last END or REST."""
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
            return self._rest() if not voiced else None
        start = self.sample - self._run * FRAME_SAMPLES
        self.speaking, self._voice, self._run = True, self._run, 0
        self._confirmed = False
        return Transition(Edge.START, start)

    def _rest(self) -> Transition | None:
        if self.sample - self._rested < REST_EVERY:
            return None
        self._rested = self.sample
        return Transition(Edge.REST, self.sample)

    def _in_speech(self, voiced: bool) -> Transition | None:
        if voiced:
            return self._on_voice()
        self._run += 1
        if self._run >= self._min_silence:
            self.speaking, self._run = False, 0
            self._rested = self.sample
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


class RejoiningEndpointing(Endpointing):
    """Hears audio again that was judged before: until then nothing is reported, and only silence
    within speech counts, because that may be about to end it."""

    __slots__ = ("_deaf_until",)

    def __init__(self, resume: Resume) -> None:
        super().__init__(resume)
        self._deaf_until = resume.deaf_until

    def on(self, voiced: bool) -> Transition | None:
        if self.sample + FRAME_SAMPLES > self._deaf_until:
            return super().on(voiced)
        self.sample += FRAME_SAMPLES
        falling = self.speaking and not voiced
        self._run = min(self._run + 1, self._min_silence - 1) if falling else 0
        return None


def endpointing(resume: Resume) -> Endpointing:
    """Of a session that begins, or goes on, here."""
    return (RejoiningEndpointing if resume.deaf_until > resume.sample else Endpointing)(resume)


class _VadSession:
    """The state of one session: VAD, endpointing, the latest audio, and the beginning of an
    incomplete frame."""

    __slots__ = ("_endpointing", "_is_speech", "_latest", "_new_vad", "_rest")

    def __init__(self, new_vad: Callable[[], IsSpeech], resume: Resume) -> None:
        self._new_vad = new_vad
        self._is_speech = new_vad()
        self._endpointing = endpointing(resume)
        self._latest = b""
        self._rest = b""

    def detect(self, session: int, pcm: bytes) -> VadResult:
        if self._rest:
            pcm = self._rest + pcm
        whole = len(pcm) - len(pcm) % FRAME_BYTES
        transitions, any_voice = [], False
        for end in range(FRAME_BYTES, whole + 1, FRAME_BYTES):
            is_voice = self._is_speech(pcm[end - FRAME_BYTES : end], RATE)
            any_voice = any_voice or is_voice
            if transition := self._endpointing.on(is_voice):
                transitions.append(transition)
                if transition.edge in (Edge.END, Edge.REST):
                    self._start_afresh(pcm[:end])
        self._latest = (self._latest + pcm[:whole])[-RECALL_BYTES:]
        self._rest = pcm[whole:]
        until = self._endpointing.sample + len(self._rest) // BYTES_PER_SAMPLE
        return VadResult(session, until, tuple(transitions), any_voice)

    def _start_afresh(self, pcm: bytes) -> None:
        """With a VAD that knows only the last of the audio that ends with `pcm`."""
        self._is_speech = self._new_vad()
        voiced(self._is_speech, (self._latest + pcm)[-RECALL_BYTES:])


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
            here.sessions[piece.session] = _VadSession(
                partial(self._ear, piece.resume.endpoint.aggressiveness), piece.resume
            )
        return here.work(piece.session)

    def _ear(self, aggressiveness: int) -> IsSpeech:
        is_speech: IsSpeech = self._new_vad(aggressiveness).is_speech
        return is_speech
