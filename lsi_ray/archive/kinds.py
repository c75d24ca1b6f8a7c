"""The kinds of values that request fields may hold.

A `Check` takes (value, param, limits), and returns the value to pass on or raises RowError; `param` is the dotted
path that error messages name. Checks return new containers and never change the one they were given.
Whole numbers written as 100.0 pass as integers: some JSON writers know no others.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from lsi_ray.archive.row_codes import bad_row, invalid, shown
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.errors import RowError

Check = Callable[[Any, str, RowLimits], Any]

_LEFT_OUT = object()
_NO_REASONS: Mapping[str, str] = {}


def integer(low: int, high: int) -> Check:
    def check(value: Any, param: str, _limits: RowLimits) -> int:
        if type(value) is float and value.is_integer():
            value = int(value)
        if type(value) is not int or not low <= value <= high:
            raise invalid(param, f"an integer from {low} to {high}", value)
        return value

    return check


def tokens(low: int) -> Check:
    """A count of tokens, from `low` to what the deployment allows."""

    def check(value: Any, param: str, limits: RowLimits) -> int:
        return integer(low, limits.max_tokens)(value, param, limits)  # type: ignore[no-any-return]

    return check


def number(low: float, high: float, *, above_low: bool = False) -> Check:
    wanted = f"a number {'above' if above_low else 'from'} {low} {'and at most' if above_low else 'to'} {high}"

    def check(value: Any, param: str, _limits: RowLimits) -> float:
        if type(value) not in (int, float) or not low <= value <= high or (above_low and value == low):
            raise invalid(param, wanted, value)
        return value  # type: ignore[no-any-return]

    return check


def flag(value: Any, param: str, _limits: RowLimits) -> bool:
    if type(value) is not bool:
        raise invalid(param, "true or false", value)
    return value


def text(max_chars: int | None = None, *, min_chars: int = 0) -> Check:
    wanted = "a string" if max_chars is None else f"a string of {min_chars} to {max_chars} characters"

    def check(value: Any, param: str, _limits: RowLimits) -> str:
        if type(value) is not str:
            raise invalid(param, wanted, value)
        if len(value) < min_chars or (max_chars is not None and len(value) > max_chars):
            raise bad_row("invalid_value", f"{param} must be {wanted}, got {len(value)} characters", param)
        return value

    return check


def one_of(*words: str) -> Check:
    def check(value: Any, param: str, _limits: RowLimits) -> str:
        if type(value) is not str or value not in words:
            raise invalid(param, "one of " + ", ".join(f'"{word}"' for word in words), value)
        return value

    return check


def only_false(reason: str) -> Check:
    def check(value: Any, param: str, _limits: RowLimits) -> bool:
        if value is not False:
            raise bad_row("invalid_value", f"{param} must be false or absent: {reason}; got {shown(value)}", param)
        return value

    return left_out(check)


def left_out(rule: Check) -> Check:
    """For fields that mean nothing to the engine: checked, and not passed on."""

    def check(value: Any, param: str, limits: RowLimits) -> object:
        rule(value, param, limits)
        return _LEFT_OUT

    return check


def array(item: Check, max_items: int, *, min_items: int = 0) -> Check:
    def check(value: Any, param: str, limits: RowLimits) -> list[Any]:
        if type(value) is not list:
            raise invalid(param, "an array", value)
        if not min_items <= len(value) <= max_items:
            raise invalid(param, f"an array of {min_items} to {max_items} items", value)
        return [item(entry, f"{param}[{position}]", limits) for position, entry in enumerate(value)]

    return check


def record(
    fields: Mapping[str, Check], required: frozenset[str] = frozenset(), reasons: Mapping[str, str] = _NO_REASONS
) -> Check:
    """An object with no other fields than these. A null field counts as absent and is left out.

    `reasons`: why certain other fields are refused.
    """

    def check(value: Any, param: str, limits: RowLimits) -> dict[str, Any]:
        if type(value) is not dict:
            raise invalid(param, "an object", value)
        checked = {}
        for name, entry in value.items():
            rule = fields.get(name)
            if rule is None:
                raise unknown_field(f"{param}.{name}", reasons.get(name))
            if entry is None:
                continue
            result = rule(entry, f"{param}.{name}", limits)
            if result is not _LEFT_OUT:
                checked[name] = result
        for name in required:
            if name not in checked:
                raise missing(f"{param}.{name}")
        return checked

    return check


def unknown_field(path: str, reason: str | None = None) -> RowError:
    path = path if len(path) <= 120 else path[:120] + "..."
    why = f": {reason}" if reason else ""
    return bad_row("unknown_field", f"{path} is not a field that is accepted here{why}", path)


def missing(path: str) -> RowError:
    return bad_row("missing_required_parameter", f"{path} is required", path)
