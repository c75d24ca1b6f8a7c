"""What validation remembers of every row: 109 bytes, however long the row is."""

from __future__ import annotations

import hashlib
import struct
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.cuts import shard_stops
from lsi_ray.archive.duplicates import NO_DIGEST, request_digest
from lsi_ray.archive.fields import ENDPOINTS
from lsi_ray.archive.jobs_lines import Line
from lsi_ray.archive.order import Keys, Shape, joints, running_order
from lsi_ray.archive.plan import KEYS, PLAN_DTYPE, prefix_keys
from lsi_ray.archive.rows import Request

_PLACE = [("row", "<u4"), ("line", "<u4"), ("offset", "<u8"), ("length", "<u4")]
_CUSTOM_ID = [("id0", "<u8"), ("id1", "<u8")]  # a 128-bit digest
_REQUEST = [("digest0", "<u8"), ("digest1", "<u8")]  # of what is asked, 0 where no row can share the answer
_KEYS = [(f"key{number}", "<u8") for number in range(KEYS)]
_WORK = [("prefill", "<u4"), ("decode", "<u4"), ("rendered", "<u4")]
_COUNTS = [("url", "u1"), ("images", "<u2"), ("videos", "<u2")]
_DTYPE = np.dtype(_PLACE + _CUSTOM_ID + _REQUEST + _KEYS + _WORK + _COUNTS)
_BAD = 255
_MOST = 2**32 - 1
_pack = struct.Struct(f"<IIQI16s16s{KEYS}QIIIBHH").pack
_URLS = tuple(ENDPOINTS)


class Duplicate(NamedTuple):
    row_index: int
    line: int
    offset: int
    length: int
    first_line: int


class Work(NamedTuple):
    """Of one row, by estimate: tokens in and out, bytes of its media when they are pixels."""

    prefill: int
    decode: int
    rendered: int


class RowTable:
    def __init__(self) -> None:
        self._packed = bytearray()

    def add(self, line: Line, request: Request, work: Work) -> None:
        images = sum(ref.kind == "image" for ref in request.media)
        self._packed += _pack(
            request.row_index,
            line.number,
            line.offset,
            line.length,
            _digest(request.custom_id),
            request_digest(request),
            *prefix_keys(request),
            *(min(amount, _MOST) for amount in work),
            _URLS.index(request.url),
            images,
            len(request.media) - images,
        )

    def add_bad(self, line: Line, row_index: int, custom_id: str) -> None:
        """A row that will not run, but whose custom_id is taken."""
        place = (row_index, line.number, line.offset, line.length)
        self._packed += _pack(*place, _digest(custom_id), NO_DIGEST, *(0,) * (KEYS + 3), _BAD, 0, 0)

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


def make_plan(rows: NDArray[np.void], shape: Shape) -> tuple[NDArray[np.void], tuple[int, ...]]:
    """`PLAN_DTYPE` entries for `rows`, in running order, and where each shard of them ends."""
    keys = np.stack([*(rows[name] for name, _ in _KEYS), _request_numbers(rows, shape.deduplicate)])
    order = running_order(keys, rows["prefill"].astype(np.int64), rows["decode"].astype(np.int64), shape)
    plan = np.empty(len(rows), PLAN_DTYPE)
    for name, _ in _PLACE:
        plan[name] = rows[name][order]
    plan["same_as"] = _first_of_each(keys[-1, order])
    return plan, shard_stops(joints(keys[:, order]), rows["rendered"][order], shape)


def _request_numbers(rows: NDArray[np.void], deduplicate: bool) -> Keys:
    """Equal for rows that share an answer."""
    own = np.arange(len(rows), dtype=np.uint64)
    if not deduplicate:
        return own
    _, first, inverse = np.unique(rows[["digest0", "digest1"]], return_index=True, return_inverse=True)
    alone = (rows["digest0"] == 0) & (rows["digest1"] == 0)
    return np.where(alone, own, first[inverse].astype(np.uint64))


def _first_of_each(numbers: Keys) -> NDArray[np.intp]:
    _, first, inverse = np.unique(numbers, return_index=True, return_inverse=True)
    return first[inverse]


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
