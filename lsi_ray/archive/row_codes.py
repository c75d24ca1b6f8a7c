"""Every code with which this package refuses one row, in one place.

| code | meaning |
|---|---|
| `invalid_json_line` | the line is not one strict JSON object: encoding, syntax, NaN, duplicate key, depth, length |
| `missing_required_parameter` | custom_id, method, url, body, model, messages, prompt or input is absent or null |
| `invalid_method` | method is not POST |
| `invalid_url` | url is not one of the three endpoints |
| `unknown_field` | a field that is not in the allowlist of `fields.py` |
| `invalid_value` | a field has a wrong type or lies outside its range |
| `stream_not_supported` | `stream: true`: a batch has nobody to stream to |
| `unsupported_content` | a message part that is not text, image_url or video_url |
| `schema_rejected` | a JSON schema is larger, deeper or wilder than a grammar compiler should be given |
| `file_not_found` | a `file:` reference names no file of the archive |
| `file_too_large` | a referenced file is larger than `RowLimits.media_bytes` |
| `unsafe_path` | a `file:` reference is absolute, leaves the archive, or holds bytes that no name may hold |
| `invalid_data_url` | a `data:` URL is not strict base64 of an image or a video |
| `remote_media_refused` | an http(s) media URL: the archive must bring its files |
| `unsupported_url` | a media URL of any other kind |
| `duplicate_custom_id` | an earlier line has the same custom_id |

Reading and decoding media adds its own codes (see `lsi_ray.media`), the engine its own.
"""

from __future__ import annotations

import json
from typing import Any, Literal

from lsi_ray.errors import RowError

RowCode = Literal[
    "invalid_json_line",
    "missing_required_parameter",
    "invalid_method",
    "invalid_url",
    "unknown_field",
    "invalid_value",
    "stream_not_supported",
    "unsupported_content",
    "schema_rejected",
    "file_not_found",
    "file_too_large",
    "unsafe_path",
    "invalid_data_url",
    "remote_media_refused",
    "unsupported_url",
    "duplicate_custom_id",
]

_SHOWN_CHARS = 80


def bad_row(code: RowCode, message: str, param: str | None = None) -> RowError:
    """A `RowError` with status 400, whose code the type checker has compared with the table above."""
    return RowError(code, message, param=param)


def invalid(param: str, wanted: str, value: Any) -> RowError:
    return bad_row("invalid_value", f"{param} must be {wanted}, got {shown(value)}", param)


def shown(value: Any) -> str:
    """`value` as JSON of at most 80 characters, and never the query or the credentials of a URL."""
    if isinstance(value, str):
        value = shown_url(value) if "://" in value else value[: _SHOWN_CHARS + 1]
    elif isinstance(value, dict):
        return f"an object with {len(value)} fields"
    elif isinstance(value, list):
        return f"an array of {len(value)}"
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= _SHOWN_CHARS else text[:_SHOWN_CHARS] + "..."


def shown_url(url: str) -> str:
    """Scheme, host and path: what tells one URL from another without what signs it."""
    scheme, _, rest = url.partition(":")
    path = rest.split("?")[0].split("#")[0]
    if path.startswith("//"):
        host, slash, tail = path[2:].partition("/")
        path = "//" + host.rpartition("@")[2] + slash + tail
    return f"{scheme[:_SHOWN_CHARS]}:{path}"[: _SHOWN_CHARS + 1]
