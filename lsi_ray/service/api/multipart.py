"""The form of POST /v1/files, read as it arrives: the file's bytes go on in pieces and are never kept here.

`Upload.chunks` carries the request to its very end, because fields may follow the file and because only the closing
boundary tells a whole file from a connection that broke; whatever is wrong there is raised from the iterator.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field

from fastapi import Request
from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header
from starlette.requests import ClientDisconnect

from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import ServiceError, Upload

MAX_FIELD_BYTES = 1024
MAX_PARTS = 16
_FORM_BYTES = 64 * 2**10  # more than the rest of a form of ours can take
_SLOWEST = 1024  # bytes per second; a phone in a tunnel is faster
MIN_EXPIRY_S, MAX_EXPIRY_S = 3600, 2_592_000
FIELDS = frozenset({"purpose", "expires_after[anchor]", "expires_after[seconds]"})


@dataclass(slots=True)
class _Part:
    """One part of the form, or a further piece of the file (`data`, with neither name nor end)."""

    name: str
    filename: str | None
    value: bytearray = field(default_factory=bytearray)

    @property
    def is_file(self) -> bool:
        return self.name == "file"


class _Form:
    """Feed it bytes; it fills `events`: the file's begin (`_Part`), its pieces (bytes), and its end (None)."""

    def __init__(self, boundary: bytes, names: frozenset[str]) -> None:
        self._names = names
        self.events: deque[_Part | bytes | None] = deque()
        self.fields: dict[str, str] = {}
        self.ended = False
        self._headers: dict[str, bytes] = {}
        self._name, self._value = b"", b""
        self._part: _Part | None = None
        self._parts = 0
        self._files = 0
        self._overhead = 0
        self._parser = MultipartParser(
            boundary,
            {
                "on_header_field": self._on_header_field,
                "on_header_value": self._on_header_value,
                "on_header_end": self._on_header_end,
                "on_headers_finished": self._on_headers_finished,
                "on_part_data": self._on_part_data,
                "on_part_end": self._on_part_end,
                "on_end": self._on_end,
            },
        )

    def feed(self, data: bytes) -> None:
        self._overhead += len(data)
        try:
            self._parser.write(data)
        except FormParserError as error:
            raise _bad(f"not a valid multipart form: {error}") from None
        if self._overhead > _FORM_BYTES:  # headers and preambles have no end of their own
            raise _bad(f"The form has more than {_FORM_BYTES} bytes beside its file")

    def _on_header_field(self, data: bytes, start: int, end: int) -> None:
        self._name += data[start:end]

    def _on_header_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]

    def _on_header_end(self) -> None:
        self._headers[self._name.decode("latin-1").lower()] = self._value
        self._name, self._value = b"", b""

    def _on_headers_finished(self) -> None:
        disposition, options = parse_options_header(self._headers.pop("content-disposition", b""))
        self._headers.clear()
        name = options.get(b"name", b"").decode("utf-8", "replace")
        filename = options.get(b"filename")
        self._part = _Part(name, None if filename is None else filename.decode("utf-8", "replace"))
        self._check_part(disposition)
        if self._part.is_file:
            self.events.append(self._part)

    def _check_part(self, disposition: bytes) -> None:
        assert self._part is not None
        self._parts += 1
        self._files += self._part.is_file
        if disposition != b"form-data" or not self._part.name:
            raise _bad("a part of the form has no name")
        if self._parts > MAX_PARTS or self._files > 1:
            raise _bad("send one file and its fields")
        if not self._part.is_file and self._part.name not in self._names:
            raise ServiceError("unknown_field", f"{self._part.name[:64]}: there is no such field")

    def _on_part_data(self, data: bytes, start: int, end: int) -> None:
        assert self._part is not None
        if self._part.is_file:
            self._overhead -= end - start
            self.events.append(data[start:end])
        elif len(self._part.value) + end - start > MAX_FIELD_BYTES:
            raise _bad(f"{self._part.name} is longer than {MAX_FIELD_BYTES} bytes")
        else:
            self._part.value += data[start:end]

    def _on_part_end(self) -> None:
        assert self._part is not None
        if self._part.is_file:
            self.events.append(None)
        else:
            self.fields[self._part.name] = self._part.value.decode("utf-8", "replace")

    def _on_end(self) -> None:
        self.ended = True


async def read_upload(request: Request, settings: ApiSettings) -> Upload:
    """Reads up to where the file begins. Raises ServiceError."""
    return (await read_form_upload(request, settings, frozenset()))[0]


async def read_form_upload(
    request: Request, settings: ApiSettings, names: frozenset[str]
) -> tuple[Upload, Mapping[str, str]]:
    """The same of a form with fields beside those of the Files API; those before the file are there at once."""
    kind, options = parse_options_header(request.headers.get("content-type"))
    if kind != b"multipart/form-data" or not options.get(b"boundary"):
        raise ServiceError("unsupported_media_type", "Send multipart/form-data with the fields purpose and file")
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared) > settings.max_file_bytes + _FORM_BYTES:
        raise _too_large(settings.max_file_bytes)
    form = _Form(options[b"boundary"], FIELDS | names)
    source = _pieces(request, settings.body_timeout_s)
    async for data in source:
        form.feed(data)
        if form.events:
            break
    else:
        raise ServiceError("missing_required_parameter", "file: this field is required", param="file")
    head = form.events.popleft()
    assert isinstance(head, _Part)
    _check_purpose(form.fields.get("purpose", "batch"))
    upload = Upload(_clean(head.filename), _empty())
    upload.chunks = _file(form, source, upload, settings.max_file_bytes)
    return upload, form.fields


async def _file(form: _Form, source: AsyncIterator[bytes], upload: Upload, max_bytes: int) -> AsyncIterator[bytes]:
    size = 0
    for_more = True
    while for_more:
        while form.events:
            if isinstance(data := form.events.popleft(), bytes):
                size += len(data)
                if size > max_bytes:
                    raise _too_large(max_bytes)
                yield data
        if (piece := await anext(source, None)) is not None:
            form.feed(piece)
        else:
            for_more = False
    if not form.ended:
        raise _incomplete()
    if size == 0:
        raise ServiceError("empty_file", "The file is empty", param="file")
    _finish(form.fields, upload)


def _finish(fields: dict[str, str], upload: Upload) -> None:
    if "purpose" not in fields:
        raise ServiceError("missing_required_parameter", "purpose: this field is required", param="purpose")
    upload.purpose = _check_purpose(fields["purpose"])
    upload.expires_after_s = _expiry(fields)


def _check_purpose(purpose: str) -> str:
    if purpose != "batch":
        raise ServiceError("invalid_value", "purpose: the only purpose of files here is 'batch'", param="purpose")
    return purpose


def _expiry(fields: dict[str, str]) -> int | None:
    anchor, seconds = fields.get("expires_after[anchor]"), fields.get("expires_after[seconds]")
    if anchor is None and seconds is None:
        return None
    if anchor != "created_at":
        raise ServiceError("invalid_value", "expires_after[anchor] must be created_at", param="expires_after[anchor]")
    if seconds is None or not seconds.isdecimal() or not MIN_EXPIRY_S <= int(seconds[:10]) <= MAX_EXPIRY_S:
        raise ServiceError(
            "invalid_value",
            f"expires_after[seconds] must be {MIN_EXPIRY_S} to {MAX_EXPIRY_S}",
            param="expires_after[seconds]",
        )
    return int(seconds)


async def _pieces(request: Request, timeout_s: float) -> AsyncIterator[bytes]:
    stream = request.stream()
    begun, size = time.monotonic(), 0
    while True:
        if size < _SLOWEST * (time.monotonic() - begun - timeout_s):
            raise ServiceError("request_timeout", f"The upload is slower than {_SLOWEST} bytes/s")
        try:
            piece = await asyncio.wait_for(anext(stream, None), timeout_s)
        except TimeoutError:
            raise ServiceError("request_timeout", f"Nothing of the upload came for {timeout_s:.0f} s") from None
        except ClientDisconnect:
            raise _incomplete() from None
        if piece is None:
            return
        if piece:
            size += len(piece)
            yield piece


async def _empty() -> AsyncIterator[bytes]:
    return
    yield b""


def _clean(filename: str | None) -> str:
    """The last part of the name, for people; it never names a file of ours."""
    name = (filename or "upload").replace("\\", "/").rpartition("/")[2]
    return "".join(c for c in name if c.isprintable())[:255] or "upload"


def _bad(message: str) -> ServiceError:
    return ServiceError("invalid_multipart", f"The upload is {message}" if message.startswith("not") else message)


def _too_large(max_bytes: int) -> ServiceError:
    return ServiceError("file_too_large", f"The file is larger than {max_bytes:,} bytes", param="file")


def _incomplete() -> ServiceError:
    return ServiceError("upload_incomplete", "The upload ended before its closing boundary: send it again")
