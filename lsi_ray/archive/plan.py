"""The order in which the rows of a batch run: rows that share a prefix or media stand next to each other.

Pure functions over arrays. The order depends only on the input file: rows are grouped by what begins their prompt, and
groups stand in the order of their first rows, so a batch whose rows share nothing keeps its order.
"""

from __future__ import annotations

from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.rows import Request

PLAN_DTYPE = np.dtype([("row", "<u4"), ("line", "<u4"), ("offset", "<u8"), ("length", "<u4")])
"""One entry per row that will run, in running order. `offset` is absolute in the plain tar."""

_PREFIX_CHARS = 256
_PREFIX_TOKENS = 64
_MASK64 = 2**64 - 1


def prefix_keys(request: Request) -> tuple[int, int, int]:
    """64-bit keys of the system prompt with tools, of the first media, and of the beginning of the user's text.

    Without media the text stands for them, so that rows with and without media stay mixed as they were: one kind loads
    the decoders, the other the engine. Keys are equal within one process for equal content; they are not for storing.
    """
    body = request.body
    messages = body.get("messages")
    if messages is None:
        text = _key(_beginning(body.get("prompt", body.get("input"))))
        return 0, text, text
    first = messages[0]
    system = _text(first["content"]) if first["role"] in ("system", "developer") else ""
    tools = msgspec.json.encode(body["tools"]) if "tools" in body else b""
    user = next((message["content"] for message in messages if message["role"] == "user"), "")
    text = _key(_text(user)[:_PREFIX_CHARS])
    if not request.media:
        return _key((system, tools)), text, text
    media = request.media[0]
    return _key((system, tools)), _key((media.kind, media.member or media.data)), text


def running_order(*keys: NDArray[np.uint64]) -> NDArray[np.intp]:
    """Positions in running order: by the group of the first key, within it of the second, and so on.

    Groups stand in the order of their first rows, rows of one group in their own order.
    """
    size = len(keys[0])
    group = np.zeros(size, np.int64)  # the first row of each row's group so far
    ranks: list[NDArray[np.int64]] = []
    for key in keys:
        _, number = np.unique(key, return_inverse=True)
        _, first, inverse = np.unique(group * size + number, return_index=True, return_inverse=True)
        group = first[inverse]
        ranks.append(group)
    order: NDArray[np.intp] = np.lexsort(ranks[::-1])
    return order


def _key(content: object) -> int:
    return hash(content) & _MASK64


def _text(content: Any) -> str:
    if type(content) is list:
        return "\n".join(part["text"] for part in content if part["type"] == "text")
    return content or ""


def _beginning(prompt: Any) -> Any:
    """Of a completion's prompt: a text, token ids, or an array of one of these."""
    if type(prompt) is str:
        return prompt[:_PREFIX_CHARS]
    if type(prompt[0]) is int:
        return tuple(prompt[:_PREFIX_TOKENS])
    return _beginning(prompt[0])
