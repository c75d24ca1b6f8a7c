"""Rows of jobs.jsonl: from the bytes of one line to a checked request whose media are named.

A row is `{"custom_id": ..., "method": "POST", "url": ..., "body": {...}}` and nothing else. What comes out holds only
fields of the allowlist, within their ranges, and no URL of the user's: media URLs become "lsi:0", "lsi:1", ...
Every RowError carries its line. The codes are listed in `row_codes`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsi_ray.archive import strict_json
from lsi_ray.archive.fields import CHAT, ENDPOINTS, check_body
from lsi_ray.archive.index import Member
from lsi_ray.archive.kinds import missing, unknown_field
from lsi_ray.archive.media_refs import MediaRef, Suggest, take_media
from lsi_ray.archive.row_codes import bad_row, invalid, shown
from lsi_ray.archive.row_limits import DEFAULT_ROW_LIMITS, RowLimits
from lsi_ray.errors import RowError

__all__ = ["MediaRef", "Request", "parse_row", "readable_custom_id"]

_CUSTOM_ID_CHARS = 512
_KEYS = ("custom_id", "method", "url", "body")


@dataclass(frozen=True, slots=True)
class Request:
    row_index: int
    """0-based over the lines that are not blank; the row's identity in its batch."""
    line: int
    """1-based line of jobs.jsonl."""
    custom_id: str
    url: str
    body: dict[str, Any]
    """Media URLs are "lsi:N", N being the position in `media`."""
    media: tuple[MediaRef, ...]


def parse_row(
    line: bytes,
    *,
    row_index: int,
    line_number: int,
    members: Mapping[str, Member],
    limits: RowLimits = DEFAULT_ROW_LIMITS,
    suggest: Suggest | None = None,
) -> Request:
    """The request of one line (without its newline). Raises RowError with any code of `row_codes`."""
    try:
        row = strict_json.decode(line, max_bytes=limits.line_bytes)
        custom_id, url = _check_envelope(row)
        body = check_body(url, row["body"], limits)
        media = take_media(body["messages"], members, limits, suggest) if url == CHAT else ()
    except RowError as error:
        error.line = line_number
        raise
    return Request(row_index, line_number, custom_id, url, body, media)


def _check_envelope(row: Any) -> tuple[str, str]:
    if type(row) is not dict:
        raise bad_row("invalid_json_line", f"the line must be a JSON object, got {shown(row)}")
    for key in _KEYS:
        if row.get(key) is None:
            raise missing(key)
    for key in row:
        if key not in _KEYS:
            raise unknown_field(key)
    custom_id, method, url = row["custom_id"], row["method"], row["url"]
    if type(custom_id) is not str or not 1 <= len(custom_id) <= _CUSTOM_ID_CHARS:
        raise invalid("custom_id", f"a string of 1 to {_CUSTOM_ID_CHARS} characters", custom_id)
    if method != "POST":
        raise bad_row("invalid_method", f'method must be "POST", got {shown(method)}', "method")
    if type(url) is not str or url not in ENDPOINTS:
        raise bad_row("invalid_url", f"url must be one of {', '.join(ENDPOINTS)}, got {shown(url)}", "url")
    return custom_id, url


def readable_custom_id(line: bytes) -> str | None:
    """The custom_id of a bad row, if it can be read at all, so that people find their row; never raises."""
    try:
        row = json.loads(line)  # not strict: only to read a label off a row that is refused anyway
    except (ValueError, RecursionError):
        return None
    custom_id = row.get("custom_id") if isinstance(row, dict) else None
    if not isinstance(custom_id, str) or not 1 <= len(custom_id) <= _CUSTOM_ID_CHARS:
        return None
    return custom_id if strict_json.encodable(custom_id) else None
