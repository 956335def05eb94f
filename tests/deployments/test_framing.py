"""Length-prefixed messages."""

import asyncio
import io

import pytest

from deployments.framing import FrameTooLong, frame, read_frame, read_frame_from


def heard(data: bytes, longest: int = 100) -> bytes:
    async def go() -> bytes:
        reader = asyncio.StreamReader()
        reader.feed_data(data)
        reader.feed_eof()
        return await read_frame(reader, longest)

    return asyncio.run(go())


@pytest.mark.parametrize("body", [b"", b"x", b"y" * 100])
def test_what_is_framed_is_read(body: bytes) -> None:
    assert heard(frame(body)) == body
    assert read_frame_from(io.BytesIO(frame(body)), 100) == body


def test_a_length_above_the_bound_is_refused_before_its_body_is_read() -> None:
    data = frame(b"y" * 101)
    with pytest.raises(FrameTooLong, match="101 bytes; at most 100"):
        heard(data)
    with pytest.raises(FrameTooLong):
        read_frame_from(io.BytesIO(data[:4]), 100)


def test_a_stream_that_ends_in_a_message_is_told_from_one_that_ends_after_it() -> None:
    for cut in (frame(b"abc")[:-1], frame(b"abc")[:2]):
        with pytest.raises(asyncio.IncompleteReadError):
            heard(cut)
    with pytest.raises(asyncio.IncompleteReadError):
        read_frame_from(io.BytesIO(frame(b"abc")[:-1]), 100)
    assert read_frame_from(io.BytesIO(b""), 100) is None
