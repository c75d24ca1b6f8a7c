"""What validation remembers of every row: 71 bytes, however long the row is."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.fields import ENDPOINTS
from lsi_ray.archive.jobs_lines import Line
from lsi_ray.archive.plan import PLAN_DTYPE, prefix_keys, running_order
from lsi_ray.archive.rows import Request

_PLACE = [("row", "<u4"), ("line", "<u4"), ("offset", "<u8"), ("length", "<u4")]
_CUSTOM_ID = [("id0", "<u8"), ("id1", "<u8")]  # a 128-bit digest
_KEYS = [("system", "<u8"), ("media", "<u8"), ("text", "<u8")]
_COUNTS = [("url", "u1"), ("images", "<u2"), ("videos", "<u2")]
_DTYPE = np.dtype(_PLACE + _CUSTOM_ID + _KEYS + _COUNTS)
_BAD = 255
_pack = struct.Struct("<IIQI16sQQQBHH").pack
_URLS = tuple(ENDPOINTS)


class Duplicate(NamedTuple):
    row_index: int
    line: int
    offset: int
    length: int
    first_line: int


class RowTable:
    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, line: Line, request: Request) -> None:
        images = sum(ref.kind == "image" for ref in request.media)
        self._packed += _pack(
            request.row_index,
            line.number,
            line.offset,
            line.length,
            _digest(request.custom_id),
            *prefix_keys(request),
            _URLS.index(request.url),
            images,
            len(request.media) - images,
        )

    def add_bad(self, line: Line, row_index: int, custom_id: str) -> None:
        """A row that will not run, but whose custom_id is taken."""
        place = (row_index, line.number, line.offset, line.length)
        self._packed += _pack(*place, _digest(custom_id), 0, 0, 0, _BAD, 0, 0)

    def rows(self) -> NDArray[np.void]:
        """All rows that were added, in the order of the file. None can be added while the array lives."""
        return np.frombuffer(self._packed, _DTYPE)


def good(rows: NDArray[np.void]) -> NDArray[np.void]:
    """The rows that run: those that were not added as bad and are the first to use their custom_id."""
    mask = rows["url"] != _BAD
    mask[_repeats(rows)[0]] = False
    runnable: NDArray[np.void] = rows[mask]
    return runnable


def duplicates(rows: NDArray[np.void]) -> list[Duplicate]:
    """Rows that are good but for their custom_id, in the order of the file."""
    later, first = _repeats(rows)
    is_good = rows["url"][later] != _BAD
    places = rows[["row", "line", "offset", "length"]][later[is_good]].tolist()
    first_lines = rows["line"][first[is_good]].tolist()
    return sorted(Duplicate._make((*place, line)) for place, line in zip(places, first_lines, strict=True))


def make_plan(rows: NDArray[np.void]) -> NDArray[np.void]:
    """`PLAN_DTYPE` entries for `rows`, in running order."""
    order = running_order(rows["system"], rows["media"], rows["text"])
    plan = np.empty(len(rows), PLAN_DTYPE)
    for name in PLAN_DTYPE.names or ():
        plan[name] = rows[name][order]
    return plan


def count_urls(rows: NDArray[np.void]) -> dict[str, int]:
    counts = np.bincount(rows["url"], minlength=len(_URLS))
    return {url: int(count) for url, count in zip(_URLS, counts, strict=True) if count}


def _digest(custom_id: str) -> bytes:
    return hashlib.blake2b(custom_id.encode(), digest_size=16).digest()


def _repeats(rows: NDArray[np.void]) -> tuple[NDArray[np.intp], NDArray[np.intp]]:
    """Positions of rows whose custom_id an earlier row has, and of the first row that has it."""
    order: NDArray[np.intp] = np.lexsort((rows["id1"], rows["id0"]))  # stable: equal ids stay in the file's order
    ids = rows[["id0", "id1"]][order]
    is_repeat = np.zeros(len(rows), bool)
    is_repeat[1:] = ids[1:] == ids[:-1]
    first = np.maximum.accumulate(np.where(is_repeat, 0, np.arange(len(rows))))
    return order[is_repeat], order[first[is_repeat]]
