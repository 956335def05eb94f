"""The input audio buffer of the OpenAI Realtime dialect. Pure."""

from deployments.audio import InputConverter
from deployments.interfaces import BYTES_PER_SAMPLE, RATE
from serve_app.dialects.frames import Frame, base64_bytes
from serve_app.dialects.realtime_shapes import Format, encoding
from serve_app.errors import ClientError
from serve_app.live.transcript import ms

MIN_COMMIT_SAMPLES = RATE // 10


class InputBuffer:
    """Converts the client's audio to 16 kHz, and counts it from one commit to the next."""

    def __init__(self, format_: Format) -> None:
        self._format = format_
        self._converter = _converter(format_)
        self._odd = b""
        """The beginning of a sample whose end has not come yet."""
        self._samples = 0
        """16 kHz samples since the last commit."""

    def change_format(self, format_: Format) -> None:
        if format_ != self._format:
            self._format = format_
            self._converter, self._odd = _converter(format_), b""

    def append(self, event: Frame) -> bytes:
        """The audio of an `append`, which may end within a sample. Raises `ClientError`."""
        audio = event.get("audio")
        if not isinstance(audio, str):
            raise ClientError("missing_required_parameter", "audio must be a base64 string")
        received = self._odd + base64_bytes(audio, "audio")
        whole = len(received) - len(received) % self._converter.frame_bytes
        self._odd = received[whole:]
        pcm = self._converter.push(received[:whole])
        self._samples += len(pcm) // BYTES_PER_SAMPLE
        return pcm

    def commit(self) -> bytes:
        """The last samples of the buffer. Raises `ClientError` if it holds less than 100 ms."""
        rest = self._converter.flush()
        self._converter = _converter(self._format)
        samples = self._samples + len(rest) // BYTES_PER_SAMPLE
        if samples < MIN_COMMIT_SAMPLES:
            raise ClientError(
                "input_audio_buffer_commit_empty",
                "Error committing input audio buffer: buffer too small. Expected at least 100 ms "
                f"of audio, but the buffer has {ms(samples)} ms",
            )
        self.clear()
        return rest

    def clear(self) -> None:
        self._samples = 0


def _converter(format_: Format) -> InputConverter:
    return InputConverter(*encoding(format_), 1)
