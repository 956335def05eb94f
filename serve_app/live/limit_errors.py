"""The errors of a live session that reaches one of its limits. Pure."""

from serve_app.config import Limits
from serve_app.errors import ClientError


def audio_overrun(limits: Limits) -> ClientError:
    return ClientError(
        "audio_overrun",
        f"more than {limits.max_buffered_audio_s:g} s of audio are waiting to be recognised: send "
        "audio no faster than results arrive",
    )


def session_too_long(limits: Limits) -> ClientError:
    reason = f"a session may last at most {limits.max_session_s:g} s"
    return ClientError("session_too_long", reason)


def silence_timeout(limits: Limits) -> ClientError:
    return ClientError("silence_timeout", f"no speech in {limits.max_silence_s:g} s of audio")


def idle_timeout(limits: Limits) -> ClientError:
    return ClientError(
        "idle_timeout",
        f"no message for {limits.idle_timeout_s:g} s: send keepalive while there is no audio",
    )


def finals_timeout(limits: Limits) -> ClientError:
    reason = f"the last finals did not arrive within {limits.closing_timeout_s:g} s"
    return ClientError("engine_timeout", reason)
