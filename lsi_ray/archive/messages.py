"""Messages of a chat request: roles, parts and tool calls; everything that is not named here is refused.

What the official SDK writes when it serialises an answer (`"audio": null`, `"annotations": []`, ...) is accepted as
part of a conversation and left out. Media parts keep their URL as the user wrote it; `media_refs` resolves it.
"""

from __future__ import annotations

from typing import Any, Literal

from lsi_ray.archive import strict_json
from lsi_ray.archive.kinds import Check, array, integer, left_out, missing, one_of, record, text
from lsi_ray.archive.row_codes import bad_row, invalid
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.errors import RowError

Kind = Literal["image", "video"]
MEDIA_PARTS: dict[str, Kind] = {"image_url": "image", "video_url": "video"}
_SUPPORTED = "text, image_url and video_url"
_ROLES = ("system", "developer", "user", "assistant", "tool")


def messages(value: Any, param: str, limits: RowLimits) -> list[dict[str, Any]]:
    """A `Check` (see `kinds`) for `messages`."""
    if type(value) is not list or not 1 <= len(value) <= limits.messages:
        raise invalid(param, f"an array of 1 to {limits.messages} messages", value)
    checked = [_message(entry, f"{param}[{position}]", limits) for position, entry in enumerate(value)]
    if sum(map(_count_media, checked)) > limits.media:
        raise bad_row("invalid_value", f"{param} hold more than {limits.media} images and videos", param)
    return checked


def _count_media(message: dict[str, Any]) -> int:
    content = message.get("content")
    return sum(part["type"] in MEDIA_PARTS for part in content) if type(content) is list else 0


def _message(value: Any, param: str, limits: RowLimits) -> dict[str, Any]:
    if type(value) is not dict:
        raise invalid(param, "an object", value)
    role = value.get("role")
    check = _BY_ROLE.get(role) if type(role) is str else None
    if check is None:
        raise missing(f"{param}.role") if role is None else _bad_role(role, param)
    message: dict[str, Any] = check(value, param, limits)
    if "content" not in message:
        if not any(message.get(name) for name in ("tool_calls", "refusal", "reasoning", "reasoning_content")):
            raise missing(f"{param}.content")
        message["content"] = None
    return message


def _bad_role(role: Any, param: str) -> RowError:
    return invalid(f"{param}.role", "one of " + ", ".join(_ROLES), role)


def _content(value: Any, param: str, limits: RowLimits) -> Any:
    if type(value) is str:
        return value
    if type(value) is not list or not 1 <= len(value) <= limits.messages:
        raise invalid(param, f"a string or an array of 1 to {limits.messages} parts", value)
    return [_part(entry, f"{param}[{position}]", limits) for position, entry in enumerate(value)]


def _part(value: Any, param: str, limits: RowLimits) -> dict[str, Any]:
    if type(value) is not dict:
        raise invalid(param, "an object", value)
    kind = value.get("type")
    if kind is None:
        raise missing(f"{param}.type")
    check = _PARTS.get(kind) if type(kind) is str else None
    if check is None:
        raise bad_row(
            "unsupported_content", str(invalid(f"{param}.type", f"one of {_SUPPORTED}", kind)), f"{param}.type"
        )
    part: dict[str, Any] = check(value, param, limits)
    return part


def _media(kind: str) -> Check:
    inner = record({"url": text(), "detail": one_of("auto", "low", "high")}, frozenset({"url"}))

    def check(value: Any, param: str, limits: RowLimits) -> dict[str, Any]:
        if type(value) is str:
            raise invalid(param, f'an object such as {{"url": "file:files/..."}} in a {kind} part', value)
        # `detail` is OpenAI's hint for its own models; the size of images is set by mm_processor_kwargs here.
        return {"url": inner(value, param, limits)["url"]}

    return check


def _arguments(value: Any, param: str, limits: RowLimits) -> str:
    """Arguments that are not JSON pass (models write such), deep ones do not: templates parse them recursively."""
    arguments: str = text()(value, param, limits)
    if arguments.count("{") + arguments.count("[") > strict_json.MAX_DEPTH:
        try:
            strict_json.decode(arguments.encode(), max_bytes=limits.line_bytes)
        except RowError as error:
            raise bad_row("invalid_value", f"{param} cannot be read: {error.message}", param) from None
    return arguments


def _empty(value: Any, param: str, _limits: RowLimits) -> None:
    if value:
        raise invalid(param, "null or empty", value)


_PARTS: dict[str, Check] = {
    "text": record({"type": one_of("text"), "text": text()}, frozenset({"text"})),
    "image_url": record({"type": one_of("image_url"), "image_url": _media("image_url")}, frozenset({"image_url"})),
    "video_url": record({"type": one_of("video_url"), "video_url": _media("video_url")}, frozenset({"video_url"})),
}

_TOOL_CALL = record(
    {
        "id": text(256),
        "type": one_of("function"),
        "index": left_out(integer(0, 1000)),
        "function": record({"name": text(256, min_chars=1), "arguments": _arguments}, frozenset({"name"})),
    },
    frozenset({"function"}),
)

_PLAIN: dict[str, Check] = {"role": one_of(*_ROLES), "content": _content, "name": text(256)}
_BY_ROLE: dict[str, Check] = {
    "system": record(_PLAIN),
    "developer": record(_PLAIN),
    "user": record(_PLAIN),
    "assistant": record(
        _PLAIN
        | {
            "tool_calls": array(_TOOL_CALL, 128),
            "refusal": text(),
            "reasoning": text(),
            "reasoning_content": text(),
            "annotations": left_out(_empty),
            "audio": left_out(_empty),
            "function_call": left_out(_empty),
        }
    ),
    "tool": record(_PLAIN | {"tool_call_id": text(256, min_chars=1)}, frozenset({"tool_call_id"})),
}
