"""Media URLs of a request: which bytes each one means, and which are refused.

`file:NAME` is relative to the archive's root and lies under files/. NAME is tried as it is written, then
percent-decoded; names are compared in NFC, so that macOS's decomposed names match. `data:` URLs must be strict base64.
Nothing is ever fetched: http(s) is refused, because the archive is all that a batch may depend on.
"""

from __future__ import annotations

import binascii
import difflib
import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from lsi_ray.archive.index import Member
from lsi_ray.archive.limits import DEFAULT_LIMITS
from lsi_ray.archive.messages import MEDIA_PARTS, Kind
from lsi_ray.archive.names import FILES, clean_name
from lsi_ray.archive.row_codes import bad_row, shown, shown_url
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.errors import ArchiveError, RowError

Suggest = Callable[[str], str | None]

_MAX_SUGGESTIONS = 100
_SUGGEST_UP_TO = 2000  # names; comparing one with more of them takes over 10 ms
_DATA_HEAD_CHARS = 1000
_DATA_URL = re.compile(r"data:([a-z0-9.+-]+)/[a-z0-9.+-]+(?:;[a-z0-9.+-]+=[^;,]*)*;base64,", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class MediaRef:
    kind: Kind
    member: str | None
    """Its name in `ArchiveIndex.members`, None for a `data:` URL."""
    data: bytes | None
    """The decoded bytes of a `data:` URL, else None."""
    param: str
    """Where the URL stands, for messages: "body.messages[0].content[1].image_url.url"."""


class Suggestions:
    """Offers the name that someone may have meant; only in small archives and a bounded number of times."""

    def __init__(self, names: Collection[str]) -> None:
        self._names = names
        self._given: dict[str, str | None] = {}

    def __call__(self, name: str) -> str | None:
        if name not in self._given:
            if len(self._names) > _SUGGEST_UP_TO or len(self._given) >= _MAX_SUGGESTIONS:
                return None
            self._given[name] = next(iter(difflib.get_close_matches(name, self._names, 1)), None)
        return self._given[name]


def take_media(
    messages: list[dict[str, Any]], members: Mapping[str, Member], limits: RowLimits, suggest: Suggest | None = None
) -> tuple[MediaRef, ...]:
    """Resolve every media URL of checked messages, in order, and write "lsi:0", "lsi:1", ... in its place.

    Changes `messages`. Raises RowError naming the reference.
    """
    found: list[MediaRef] = []
    for i, message in enumerate(messages):
        if type(message["content"]) is not list:
            continue
        for j, part in enumerate(message["content"]):
            kind = MEDIA_PARTS.get(part["type"])
            if kind is None:
                continue
            slot, param = part[part["type"]], f"body.messages[{i}].content[{j}].{part['type']}.url"
            ref = resolve(slot["url"], kind, param, members, suggest)
            _check_size(ref, members, limits)
            slot["url"] = f"lsi:{len(found)}"
            found.append(ref)
    return tuple(found)


def resolve(
    url: str, kind: Kind, param: str, members: Mapping[str, Member], suggest: Suggest | None = None
) -> MediaRef:
    """What `url` means. `suggest` may offer the name of a file for one that is not there."""
    scheme = url[:6].partition(":")[0].lower()
    if scheme == "file":
        return MediaRef(kind, _find(url[5:], param, members, suggest), None, param)
    if scheme == "data":
        return MediaRef(kind, None, _decode(url, kind, param), param)
    if scheme in ("http", "https"):
        hint = "put the file into the archive under files/ and write file:files/NAME"
        raise bad_row("remote_media_refused", f"{shown_url(url)} is not fetched: {hint} ({param})", param)
    hint = f"; did you mean file:{url}?" if url in members else ""
    raise bad_row("unsupported_url", f"{param} must be a file: or data: URL, got {shown(url)}{hint}", param)


def _find(reference: str, param: str, members: Mapping[str, Member], suggest: Suggest | None) -> str:
    name = _clean(reference, param)
    if name in members and name.startswith(FILES):
        return name
    decoded = _clean(_percent_decoded(reference), param)
    if decoded in members and decoded.startswith(FILES):
        return decoded
    close = suggest(decoded) if suggest else None
    hint = f"; did you mean file:{close}?" if close else ""
    raise bad_row("file_not_found", f"the archive has no file {shown(name)} ({param}){hint}", param)


def _percent_decoded(reference: str) -> str:
    try:
        return unquote(reference, errors="strict")
    except UnicodeDecodeError:
        return reference


def _clean(reference: str, param: str) -> str:
    """The rules of names in archives hold for references too. "" (the root itself) is found nowhere."""
    try:
        return clean_name(reference.encode(), None, DEFAULT_LIMITS)
    except ArchiveError as error:
        hint = " (write file:files/NAME, relative to the archive's root)" if reference.startswith("/") else ""
        raise bad_row("unsafe_path", f"{param}: {error.message}{hint}", param) from None


def _check_size(ref: MediaRef, members: Mapping[str, Member], limits: RowLimits) -> None:
    if ref.member is not None and members[ref.member].size > limits.media_bytes:
        size = members[ref.member].size
        message = f"{ref.member!r} has {size} bytes; at most {limits.media_bytes} are accepted ({ref.param})"
        raise bad_row("file_too_large", message, ref.param)


def _decode(url: str, kind: Kind, param: str) -> bytes:
    head = _DATA_URL.match(url, 0, _DATA_HEAD_CHARS)
    if head is None:
        raise _bad_data_url(param, f"must be data:{kind}/...;base64,..., got {shown(url[:40])}")
    if head[1].lower() != kind:
        raise _bad_data_url(param, f"must hold a media type {kind}/..., got {shown(url[: head.end()])}")
    try:
        data = binascii.a2b_base64(url[head.end() :], strict_mode=True)
    except (binascii.Error, ValueError) as error:
        raise _bad_data_url(param, f"is not strict base64: {error}") from None
    if not data:
        raise _bad_data_url(param, "is empty")
    return data


def _bad_data_url(param: str, reason: str) -> RowError:
    return bad_row("invalid_data_url", f"{param} {reason}", param)
