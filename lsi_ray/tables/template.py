"""A prompt with columns in it: `Describe {title} in {language}.`; `{{` and `}}` are braces."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from string import Formatter
from typing import Any

from lsi_ray.errors import ConfigError

_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Template:
    parts: tuple[tuple[str, str | None], ...]
    """Text, and the column that follows it, if any."""

    @classmethod
    def parse(cls, text: str) -> Template:
        """Raises ConfigError. Formats, indexes and attributes (`{a:>3}`, `{a[0]}`, `{a.b}`) are not columns."""
        hint = "a column is {name}; write {{ and }} for braces"
        parts: list[tuple[str, str | None]] = []
        try:
            for literal, name, form, conversion in Formatter().parse(text):
                if name is not None and (not name.strip() or form or conversion):
                    raise ConfigError(
                        f"the prompt template has {{{name}}} with nothing or more than a name in it: {hint}"
                    )
                parts.append((literal, name))
        except ConfigError:
            raise
        except ValueError as error:
            raise ConfigError(f"the prompt template: {error}: {hint}") from None
        return cls(tuple(parts))

    def fill(self, values: Mapping[str, Any]) -> str:
        """Raises ValueError naming the column: one that is not there, is null, or is binary."""
        return "".join(text + (shown_value(values, name) if name is not None else "") for text, name in self.parts)


def shown_value(values: Mapping[str, Any], name: str) -> str:
    """A value as it stands in a prompt: text as it is, lists and structs as JSON. Raises ValueError with the column."""
    value = column(values, name)
    if isinstance(value, str):
        return value
    if isinstance(value, (list, dict)):
        try:
            return json.dumps(value, ensure_ascii=False, default=_plain)
        except TypeError as error:
            raise ValueError(f"column {name!r}: {error}") from None
    return _plain(value, name)


def column(values: Mapping[str, Any], name: str) -> Any:
    """A value that is there and not null. Raises ValueError naming the column."""
    if name not in values:
        raise ValueError(f"there is no column {name!r}; there are {', '.join(map(repr, values))}")
    if values[name] is None:
        raise ValueError(f"column {name!r} is null")
    return values[name]


def _plain(value: Any, name: str = "") -> str:
    if isinstance(value, (bytes, bytearray, memoryview)):
        where = f"column {name!r} is" if name else "a value inside is"
        raise ValueError(f"{where} binary ({bytes(value[:12])!r}...), which cannot stand in a prompt")
    return str(value)
