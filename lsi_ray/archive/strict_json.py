"""The one JSON decoder for lines of users: what it accepts can be written and read again unchanged.

Python's `json` and others take NaN, 1e999, lone surrogates and duplicate keys (the last one wins, silently); each
of these has broken a writer or hidden a field somewhere. Refused here, with the column:

- bytes that are not UTF-8, a byte order mark, anything that is not one JSON value
- NaN, Infinity, numbers beyond a double, integers beyond int64
- duplicate keys of one object (compared after unescaping), lone surrogates, nesting deeper than `MAX_DEPTH`

A good line costs one pass of the C scanner of `json` with hooks that notice a violation, and three byte searches. Only
a suspicious line is read again, by `_violation`, to say what is wrong and where.
"""

from __future__ import annotations

import json
import re
from typing import Any

from lsi_ray.archive.row_codes import bad_row, shown
from lsi_ray.errors import RowError

MAX_DEPTH = 64
MAX_LINE_BYTES = 16 << 20
_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

_SURROGATE_ESCAPE = re.compile(rb"\\u[dD][89a-fA-F]")
_TOKEN = re.compile(
    r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\]:,]|true|false|null|NaN|-?Infinity'
    r"|-?[0-9]++(?:\.[0-9]++)?(?:[eE][-+]?[0-9]++)?",
    re.DOTALL,
)


class _Suspicious(ValueError):
    """A hook saw something that `_violation` will find again, with its place."""


def decode(line: bytes, *, max_bytes: int = MAX_LINE_BYTES) -> Any:
    """The value of one line. Raises RowError `invalid_json_line` that says what is wrong and at which column.

    Columns count characters from 1.
    """
    if len(line) > max_bytes:
        raise _refusal(f"the line has {len(line)} bytes; at most {max_bytes} are accepted")
    text = _text(line)
    try:
        value = _DECODER.decode(text)
    except json.JSONDecodeError as error:
        reason = error.msg.removesuffix(" at")
        raise _refusal(f"not JSON: {reason} at column {error.pos + 1}") from None
    except (_Suspicious, RecursionError):
        raise _refusal(_violation(text)) from None
    if _may_be_deep(line) and not _within_depth(value):
        raise _refusal(_violation(text))
    if _SURROGATE_ESCAPE.search(line) and not encodable(json.dumps(value, ensure_ascii=False)):
        raise _refusal(_violation(text))
    return value


def _refusal(reason: str) -> RowError:
    return bad_row("invalid_json_line", reason)


def _text(line: bytes) -> str:
    if line.startswith(b"\xef\xbb\xbf"):
        raise _refusal("the line starts with a UTF-8 byte order mark (column 1); save the file as UTF-8 without BOM")
    if line.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise _refusal("the line is UTF-16 (byte order mark at column 1); save the file as UTF-8")
    try:
        return line.decode()
    except UnicodeDecodeError as error:
        column = len(line[: error.start].decode()) + 1
        raise _refusal(f"byte 0x{line[error.start]:02x} at column {column} is not UTF-8") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    value = dict(pairs)
    if len(value) != len(pairs):
        raise _Suspicious
    return value


def _integer(digits: str) -> int:
    if len(digits) > 18 and not _is_int64(digits):
        raise _Suspicious
    return int(digits)


def _is_int64(digits: str) -> bool:
    """The length first: Python refuses to convert 4,300 digits, and takes quadratic time below that."""
    return len(digits) <= 20 and _INT64_MIN <= int(digits) <= _INT64_MAX


def _float(digits: str) -> float:
    value = float(digits)
    if value - value != 0.0:
        raise _Suspicious
    return value


def _constant(_name: str) -> Any:
    raise _Suspicious


_DECODER = json.JSONDecoder(object_pairs_hook=_object, parse_int=_integer, parse_float=_float, parse_constant=_constant)


def _may_be_deep(line: bytes) -> bool:
    return line.count(b"{") + line.count(b"[") > MAX_DEPTH


def _within_depth(value: Any) -> bool:
    """Walks the containers level by level; scalars are not visited twice."""
    level = _containers([value])
    for _ in range(MAX_DEPTH):
        if not level:
            return True
        level = [item for node in level for item in _containers(node)]
    return not level


def _containers(node: Any) -> list[Any]:
    items = node.values() if type(node) is dict else node
    return [item for item in items if type(item) in (dict, list)]


def encodable(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _violation(text: str) -> str:
    """The first violation in `text`, whose syntax is known to be right up to there."""
    keys: list[set[str] | None] = []  # one per open container: the keys of an object, None for an array
    previous = ""
    for match in _TOKEN.finditer(text):
        token, column = match[0], match.start() + 1
        if token[0] == '"':
            word = json.loads(token)
            seen = keys[-1] if keys and previous in "{," else None
            if not encodable(word):
                return f"the string at column {column} holds half a surrogate pair"
            if seen is not None and word in seen:
                return f"duplicate key {shown(word)} at column {column}"
            if seen is not None:
                seen.add(word)
        elif token in "{[":
            keys.append(set() if token == "{" else None)
            if len(keys) > MAX_DEPTH:
                return f"nested deeper than {MAX_DEPTH} levels at column {column}"
        elif token in "}]":
            keys.pop()
        elif not _is_fine(token):
            return f"{_shown_number(token)} at column {column} is not a number that JSON and int64 or double can hold"
        previous = token
    raise AssertionError("a hook saw a violation that the tokens do not hold")


def _is_fine(token: str) -> bool:
    if token in (":", ",", "true", "false", "null"):
        return True
    if token.lstrip("-").isdigit():
        return _is_int64(token)
    return token not in ("NaN", "Infinity", "-Infinity") and abs(float(token)) != float("inf")


def _shown_number(token: str) -> str:
    return token if len(token) <= 24 else f"{token[:20]}... ({len(token)} digits)"
