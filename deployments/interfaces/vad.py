"""Voice activity detection: audio in, starts and ends of speech out."""

from enum import Enum
from typing import NamedTuple

from deployments.interfaces.audio import RATE

RECALL = RATE // 2
"""Samples before a fresh start that decide how a VAD goes on from there; see `Edge.REST`."""


class Endpoint(NamedTuple):
    """When speech starts and ends in a session, in ms. A `pause_ms` or `confirm_ms` of 0 turns that
    event off."""

    aggressiveness: int = 2
    """From 0, which detects speech most readily, to 3, the strictest."""
    min_speech_ms: int = 60
    min_silence_ms: int = 500
    pause_ms: int = 0
    """Silence after which speech may have ended."""
    confirm_ms: int = 0
    """Total voice after which speech is more than a cough."""


class Resume(NamedTuple):
    """Where a replica starts in a session's audio: at the boundary of a 20 ms frame."""

    sample: int
    speaking: bool
    endpoint: Endpoint
    deaf_until: int = 0
    """Nothing is reported before this sample: it was before, and the audio up to here only lets
    the VAD find its way back."""


class VadInput(NamedTuple):
    """The next audio of one session.

    `resume` is set on the first piece that a replica gets, and on the first one after the
    session's endpoint has changed.
    """

    session: int
    pcm: bytes
    resume: Resume | None = None


class Edge(Enum):
    """A change in a session's audio."""

    START = "start"
    """Speech starts at this sample, not counting any prefix padding."""
    CONFIRMED = "confirmed"
    """The speech contains enough voice: it is more than a cough."""
    PAUSE = "pause"
    """Speech may have ended; END or RESUME follows."""
    RESUME = "resume"
    """Speech continues after a pause."""
    END = "end"
    """Speech has ended: the silence was long enough."""
    REST = "rest"
    """Nobody has spoken for some seconds. Here, and at an END, the VAD starts afresh with the last
    `RECALL` samples, so that another one that gets the audio from there judges alike."""


class Transition(NamedTuple):
    edge: Edge
    sample: int


class VadResult(NamedTuple):
    """The VAD has processed a session up to sample `until`; `voiced` if any frame was voice.

    `until` includes an incomplete frame at the end: no later transition lies before it, because
    transitions happen at the end of a frame, except the start of speech, which is dated back.
    """

    session: int
    until: int
    transitions: tuple[Transition, ...]
    voiced: bool
