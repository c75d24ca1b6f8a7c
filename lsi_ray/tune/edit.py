"""Changes engine arguments in the text of a config, and nothing else in it: comments, order and style stay."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import yaml

from lsi_ray.config import Config, SimulatedEngine
from lsi_ray.tune.candidate import Value


def edited(text: str, config: Config, changes: Mapping[str, Value]) -> tuple[str, bool]:
    """The text with the changes in its engine arguments, and whether its comments are still there.

    They are lost only where the place of an argument cannot be found, as behind YAML's anchors: it is all written anew.
    """
    where = ("engine",) if isinstance(config.engine, SimulatedEngine) else ("engine", "args")
    wanted = yaml.safe_load(text)
    section = wanted
    for name in where:
        section = section[name]
    section.update(changes)
    new = _in_place(text, where, changes)
    if new is not None and _loads(new) == wanted:
        return new, True
    return yaml.safe_dump(wanted, sort_keys=False, allow_unicode=True), False


def _loads(text: str) -> Any:
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        return None


def _in_place(text: str, where: tuple[str, ...], changes: Mapping[str, Value]) -> str | None:
    mapping = yaml.compose(text, Loader=yaml.SafeLoader)
    for name in where:
        mapping = _child(mapping, name)
    if not isinstance(mapping, yaml.MappingNode) or not mapping.value:
        return None
    places: list[tuple[int, int, str]] = []
    for name, value in changes.items():
        node = _child(mapping, name)
        if node is not None:
            places.append((node.start_mark.index, node.end_mark.index, f"{value:g}" if value < 1 else str(value)))
        else:
            places.append(_new_line(mapping, name, value))
    for begin, end, words in sorted(places, reverse=True):
        text = text[:begin] + words + text[end:]
    return text


def _new_line(mapping: yaml.MappingNode, name: str, value: Value) -> tuple[int, int, str]:
    """Before the first key of the mapping, in its style."""
    mark = mapping.value[0][0].start_mark
    after = ", " if mapping.flow_style else "\n" + " " * mark.column
    return mark.index, mark.index, f"{name}: {value}{after}"


def _child(node: Any, name: str) -> Any:
    if not isinstance(node, yaml.MappingNode):
        return None
    return next((value for key, value in node.value if key.value == name), None)
