"""A form with a recording, read as it arrives: the file is passed on in pieces and not stored."""

from collections.abc import AsyncIterator

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

from serve_app.errors import ClientError

MULTIPART = "multipart/form-data"
MAX_FIELDS = 64
MAX_FIELD_BYTES = 64 << 10
MAX_HEADERS = 16
MAX_HEADER_BYTES = 8 << 10
PIECE_BYTES = 1 << 20


def is_form(request: Request) -> bool:
    return request.headers.get("content-type", "").lower().startswith(MULTIPART)


class FileForm:
    """The field `file` streams through `file()`; the others are in `fields` once it has ended, and
    `filename` is "" if there was no file.

    Raises `ClientError` for a body that is not a form, is incomplete, or exceeds a limit.
    """

    def __init__(self, request: Request) -> None:
        self._request = request
        self._parser = MultipartParser(
            _boundary(request),
            {
                "on_part_begin": self._begin,
                "on_header_field": self._header_name,
                "on_header_value": self._header_value,
                "on_header_end": self._header_end,
                "on_headers_finished": self._headers_finished,
                "on_part_data": self._data,
                "on_part_end": self._end,
                "on_end": self._close,
            },
            max_header_count=MAX_HEADERS,
            max_header_size=MAX_HEADER_BYTES,
        )
        self.fields: list[tuple[str, str]] = []
        self.filename = ""
        self._ended = False
        self._file = bytearray()
        """The part of the recording that was not passed on yet."""
        self._part: bytearray = self._file
        """Where the data of the current part goes."""
        self._field = ""
        self._name = b""
        self._value = b""
        self._headers: dict[bytes, bytes] = {}
        self._parts = 0

    async def file(self) -> AsyncIterator[bytes]:
        """The recording's bytes; ends with the form."""
        async for chunk in self._request.stream():
            self._parse(chunk)
            if len(self._file) >= PIECE_BYTES:
                yield self._take_file()
        if not self._ended:
            raise ClientError("invalid_request", "the form is incomplete")
        if self._file:
            yield self._take_file()

    def _take_file(self) -> bytes:
        piece = bytes(self._file)
        self._file.clear()
        return piece

    def _parse(self, chunk: bytes) -> None:
        try:
            self._parser.write(chunk)
        except FormParserError as error:
            raise ClientError("invalid_request", f"the body is not a form: {error}") from error

    def _close(self) -> None:
        self._ended = True

    def _begin(self) -> None:
        self._headers = {}
        self._parts += 1
        if self._parts > MAX_FIELDS:
            raise ClientError("invalid_request", f"a form has at most {MAX_FIELDS} fields")

    def _header_name(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _header_end(self) -> None:
        self._headers[self._name.lower()] = self._value
        self._name = self._value = b""

    def _headers_finished(self) -> None:
        _, options = parse_options_header(self._headers.get(b"content-disposition", b""))
        self._field = _text(options.get(b"name", b""))
        self._part = bytearray()
        if self._field == "file":
            if self.filename:
                raise ClientError("invalid_request", "a form has only one field `file`")
            self.filename = _text(options.get(b"filename", b""))[-255:] or "upload"
            self._part = self._file

    def _data(self, data: bytes, start: int, end: int) -> None:
        self._part += data[start:end]
        if self._part is not self._file and len(self._part) > MAX_FIELD_BYTES:
            reason = f"field {self._field[:40]!r} has more than {MAX_FIELD_BYTES} bytes"
            raise ClientError("invalid_request", reason)

    def _end(self) -> None:
        if self._part is not self._file:
            self.fields.append((self._field, _text(bytes(self._part))))


def _boundary(request: Request) -> bytes:
    kind, options = parse_options_header(request.headers.get("content-type", ""))
    boundary = options.get(b"boundary")
    if kind.decode("latin-1") != MULTIPART or not boundary or len(boundary) > 256:
        raise ClientError("unsupported_body", "send multipart/form-data with a field `file`")
    return boundary


def _text(raw: bytes) -> str:
    try:
        return raw.decode()
    except UnicodeDecodeError as error:
        raise ClientError("invalid_request", "a field is not UTF-8") from error
