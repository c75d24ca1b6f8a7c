"""Sets of positions: bitmaps within a shard (bit i, little-endian, is position start + i), packed lists of a segment.

A 64-row shard's bitmap is 8 bytes, and the positions of a 64-row segment pack into about 20.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Sequence

import numpy as np


def empty(start: int, stop: int) -> bytes:
    return bytes((stop - start + 7) // 8)


def members(start: int, stop: int, done: bytes) -> tuple[int, ...]:
    """The positions of [start, stop) that are not set in `done`."""
    bits = int.from_bytes(done, "little")
    return tuple(start + i for i in range(stop - start) if not bits >> i & 1)


def contains(start: int, done: bytes, position: int) -> bool:
    at = position - start
    return bool(done[at // 8] >> (at % 8) & 1)


def with_bits(start: int, done: bytes, positions: Iterable[int], value: bool) -> bytes:
    bits = bytearray(done)
    for position in positions:
        byte, bit = divmod(position - start, 8)
        bits[byte] = bits[byte] | 1 << bit if value else bits[byte] & ~(1 << bit)
    return bytes(bits)


def slice_bits(start: int, done: bytes, first: int, last: int) -> bytes:
    """The bitmap of [first, last), a part of the shard that begins at `start`."""
    bits = int.from_bytes(done, "little") >> (first - start) & ((1 << (last - first)) - 1)
    return bits.to_bytes((last - first + 7) // 8, "little")


def count(done: bytes) -> int:
    return int.from_bytes(done, "little").bit_count()


def pack(positions: Sequence[int]) -> bytes:
    """Ascending positions as zlib of their differences (uint32)."""
    steps = np.diff(np.array(positions, dtype="<u4"), prepend=np.array([0], dtype="<u4"))
    return zlib.compress(steps.astype("<u4").tobytes(), 1)


def unpack(packed: bytes) -> tuple[int, ...]:
    steps = np.frombuffer(zlib.decompress(packed), dtype="<u4")
    return tuple(np.cumsum(steps, dtype=np.int64).tolist())
