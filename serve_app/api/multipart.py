"""A form with a recording in it, read as it comes: the file goes on piece by piece, and nothing of
it is kept here."""

import asyncio
from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.api.uploads import in_time
from serve_app.errors import ClientError

MOST_FIELDS = 64
MOST_FIELD_BYTES = 64 << 10
MOST_HEADER_BYTES = 8 << 10
PIECE_BYTES = 1 << 20


class FileForm:
    """The field `file` streams through `file()`; the others are in `fields` once it has ended.

    Raises `ClientError` for a body that is no form, breaks off, or has too much of anything.
    """

    def __init__(self, request: Request, timeout_s: float) -> None:
        kind, options = parse_options_header(request.headers.get("content-type", ""))
        boundary = options.get(b"boundary")
        if kind != b"multipart/form-data" or not boundary:
            raise ClientError("unsupported_body", "send multipart/form-data with a field `file`")
        self._request = request
        self._timeout_s = timeout_s
        self._ended = asyncio.Event()
        self._parser = MultipartParser(
            boundary,
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._ended.set,
            },
        )
        self.fields: list[tuple[str, str]] = []
        self.filename = ""
        self._file = bytearray()
        """Of the recording, what was not taken yet."""
        self._part: bytearray = self._file
        """Where the data of the part at hand goes."""
        self._field = ""
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts = 0

    async def file(self) -> AsyncIterator[bytes]:
        """The recording's bytes; ends with the form. Whoever takes them may do so from a task a
        piece, so no timeout spans two of them."""
        deadline = asyncio.get_running_loop().time() + self._timeout_s
        chunks = aiter(self._request.stream())
        while chunk := await in_time(anext(chunks, b""), deadline):
            self._parse(chunk)
            if len(self._file) >= PIECE_BYTES:
                yield self._taken()
        self._finish()
        if self._file:
            yield self._taken()

    def _taken(self) -> bytes:
        piece = bytes(self._file)
        self._file.clear()
        return piece

    def _parse(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ClientError("invalid_request", "the body is not a form") from error

    def _finish(self) -> None:
        if not self._ended.is_set():
            raise ClientError("invalid_request", "the form breaks off")

    def _begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > MOST_FIELDS:
            raise ClientError("invalid_request", f"a form has at most {MOST_FIELDS} fields")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]
        self._check_header()

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check_header()

    def _check_header(self) -> None:
        if len(self._name) + len(self._value) > MOST_HEADER_BYTES or len(self._headers) > 16:
            raise ClientError("invalid_request", "a field's headers are too large")

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, said = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = _text(said.get(b"name", b""))
        self._part = bytearray()
        if self._field == "file":
            if self.filename:
                raise ClientError("invalid_request", "a form has one field `file`")
            self.filename = _text(said.get(b"filename", b""))[-255:] or "upload"
            self._part = self._file

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if self._part is not self._file and len(self._part) > MOST_FIELD_BYTES:
            reason = f"field {self._field[:40]!r} is over {MOST_FIELD_BYTES} bytes"
            raise ClientError("invalid_request", reason)

    def _end(self) -> None:
        if self._part is not self._file:
            self.fields.append((self._field, _text(bytes(self._part))))


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ClientError("invalid_request", "a field is not UTF-8") from error
