"""What the rows of a batch share, and the entries of its running order.

Keys are equal within one process for equal content; they are not for storing. What is made of them depends only on
which are equal, so the same file gives the same plan everywhere.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.media_refs import MediaRef
from lsi_ray.archive.rows import Request

PLAN_DTYPE = np.dtype([("row", "<u4"), ("line", "<u4"), ("offset", "<u8"), ("length", "<u4"), ("same_as", "<u4")])
"""One entry per row that will run, in running order. `offset` is absolute in the plain tar. `same_as` is the position
of the first row that asks the same, of most rows their own (duplicates.py)."""

KEYS = 5
"""What `prefix_keys` gives, from what is shared most widely to what is shared least."""

_TEXT_CHARS = (256, 1024, 4096)
_MASK64 = 2**64 - 1


def prefix_keys(request: Request) -> tuple[int, ...]:
    """64-bit keys of the system prompt with tools, of the first media, and of beginnings of the text behind them: of
    256, 1024 and 4096 characters, so that questions about one long document stand together too.

    Without media the text stands for them, so that rows with and without media stay mixed as they were: one kind loads
    the decoders, the other the engine.
    """
    body = request.body
    messages = body.get("messages")
    if messages is None:
        texts = [_key(_beginning(body.get("prompt", body.get("input")), chars)) for chars in _TEXT_CHARS]
        return 0, texts[0], *texts
    first = messages[0]
    system = _text(first["content"]) if first["role"] in ("system", "developer") else ""
    tools = msgspec.json.encode(body["tools"]) if "tools" in body else b""
    said = _said(messages[1:] if system else messages)
    texts = [_key(said[:chars]) for chars in _TEXT_CHARS]
    return _key((system, tools)), _media_key(request.media[0]) if request.media else texts[0], *texts


def load_plan(path: Path) -> NDArray[np.void]:
    """Mapped, not read. One that was written before rows shared answers gets the field that it lacks."""
    plan: NDArray[np.void] = np.load(path, mmap_mode="r")
    if plan.dtype == PLAN_DTYPE:
        return plan
    whole = np.empty(len(plan), PLAN_DTYPE)
    for name in plan.dtype.names or ():
        whole[name] = plan[name]
    whole["same_as"] = np.arange(len(plan))
    return whole


def _key(content: object) -> int:
    return hash(content) & _MASK64


def _media_key(media: MediaRef) -> int:
    return _key((media.kind, media.member or media.data))


def _said(messages: list[dict[str, Any]]) -> str:
    """The beginning of what all say, as far as keys read."""
    texts: list[str] = []
    chars = 0
    for message in messages:
        texts.append(_text(message["content"]))
        chars += len(texts[-1])
        if chars >= _TEXT_CHARS[-1]:
            break
    return "\n".join(texts)


def _text(content: Any) -> str:
    if type(content) is list:
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _beginning(prompt: Any, chars: int) -> Any:
    """Of a completion's prompt: a text, token ids (of 4 characters each), or an array of one of these."""
    if type(prompt) is str:
        return prompt[:chars]
    if type(prompt[0]) is int:
        return tuple(prompt[: chars // 4])
    return _beginning(prompt[0], chars)
