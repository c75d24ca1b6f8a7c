"""Bounds for JSON schemas, which become grammars: of `response_format` and of the parameters of tools.

Grammar compilers have no time limit of their own. Measured elsewhere with xgrammar 0.2.8: nested objects cost about
the cube of the depth (60 levels 0.05 s, 250 levels 3 s), 3,000 nested arrays over 60 s, an enum of 100,000 entries
0.4 s and 425 MiB. Within these bounds a schema compiles in well under a second.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import msgspec

from lsi_ray.archive.row_codes import bad_row, invalid, shown
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.errors import RowError

MAX_BYTES = 64 * 1024
MAX_DEPTH = 32
MAX_NODES = 2000
MAX_ENUM = 5000
MAX_PATTERN_CHARS = 512

_REFERENCES = ("$ref", "$dynamicRef", "$recursiveRef")


def bounded_schema(value: Any, param: str, _limits: RowLimits) -> dict[str, Any]:
    """A `Check` (see `kinds`) for a JSON schema. Raises RowError `schema_rejected` beyond the bounds above."""
    if type(value) is not dict:
        raise invalid(param, "a JSON schema (an object)", value)
    size = len(msgspec.json.encode(value))
    if size > MAX_BYTES:
        raise _rejected(param, f"has {size} bytes; at most {MAX_BYTES} are accepted")
    for count, (depth, node) in enumerate(_nodes(value), start=1):
        if depth > MAX_DEPTH:
            raise _rejected(param, f"is nested deeper than {MAX_DEPTH} levels")
        if count > MAX_NODES:
            raise _rejected(param, f"has more than {MAX_NODES} objects and arrays")
        if type(node) is dict:
            _check_node(node, param)
    return value


def _nodes(schema: dict[str, Any]) -> Iterator[tuple[int, Any]]:
    """(depth, container) for every object and array, the outermost at depth 1."""
    pending: list[tuple[int, Any]] = [(1, schema)]
    while pending:
        depth, node = pending.pop()
        yield depth, node
        items = node.values() if type(node) is dict else node
        pending.extend((depth + 1, item) for item in items if type(item) in (dict, list))


def _check_node(node: dict[str, Any], param: str) -> None:
    choices = node.get("enum")
    if type(choices) is list and len(choices) > MAX_ENUM:
        raise _rejected(param, f"has an enum of {len(choices)} entries; at most {MAX_ENUM} are accepted")
    for pattern in _patterns(node):
        if len(pattern) > MAX_PATTERN_CHARS:
            raise _rejected(
                param, f"has a pattern of {len(pattern)} characters; at most {MAX_PATTERN_CHARS} are accepted"
            )
    for name in _REFERENCES:
        target = node.get(name)
        if type(target) is str and not target.startswith("#"):
            raise _rejected(param, f"refers to {shown(target)}; only references within it (#...) are accepted")


def _patterns(node: dict[str, Any]) -> Iterator[str]:
    if type(node.get("pattern")) is str:
        yield node["pattern"]
    by_name = node.get("patternProperties")
    if type(by_name) is dict:
        yield from by_name


def _rejected(param: str, reason: str) -> RowError:
    return bad_row("schema_rejected", f"The JSON schema in {param} {reason}", param)
