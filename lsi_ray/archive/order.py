"""The order in which the rows of a batch run, for the engine's sake: what shares a prefix or media stands together,
prefill and decode are mixed, and no long answer begins when the others end.

Pure functions over arrays. Groups stand in the order of their first rows, and a row leaves its place only for a
reason: a batch whose rows share nothing and are alike runs in the order of its file, so that its first rows are
answered first.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]  # shape: (keys, rows)
Ints = NDArray[np.int64]
Floats = NDArray[np.float64]

_UNLIKE = 2.0
"""Units whose answers are so much longer, by their prompts, than the batch's are mixed with those of the opposite
kind: decoding leaves the arithmetic idle that prefill needs."""

_HEADROOM = 1.5
"""A row begins by as much before the end, in steps of the engine, as its longest answer takes, and half of it more."""


@dataclass(frozen=True, slots=True)
class Shape:
    """What a plan is made for."""

    shard_rows: int = 64
    shard_bytes: int = 32 * 2**20
    """Of rendered media, by estimate."""
    replicas: int = 1
    seats: int = 64
    """Rows that one replica runs at once."""
    deduplicate: bool = True


def grouped(keys: Keys) -> NDArray[np.intp]:
    """Positions, by the group of the first key, within it of the second, and so on.

    Groups stand in the order of their first rows, rows of one group in their own order.
    """
    size = keys.shape[1]
    group = np.zeros(size, np.int64)  # the first row of each row's group so far
    ranks: list[Ints] = []
    for key in keys:
        _, number = np.unique(key, return_inverse=True)
        _, first, inverse = np.unique(group * size + number, return_index=True, return_inverse=True)
        group = first[inverse]
        ranks.append(group)
    order: NDArray[np.intp] = np.lexsort(ranks[::-1])
    return order


def joints(keys: Keys) -> Ints:
    """How many leading keys each row shares with the one before it; 0 for the first."""
    same = np.logical_and.accumulate(keys[:, 1:] == keys[:, :-1], axis=0)
    return np.concatenate(([0], same.sum(axis=0, dtype=np.int64)))[: keys.shape[1]]


def running_order(keys: Keys, prefill: Ints, decode: Ints, shape: Shape) -> NDArray[np.intp]:
    """Positions in running order. `prefill`, `decode`: the tokens of each row, by estimate."""
    order = grouped(keys)
    if not len(order):
        return order
    unit = units(joints(keys[:, order]), len(keys), shape.shard_rows)
    starts = np.flatnonzero(np.diff(unit, prepend=-1))
    before, after = (np.add.reduceat(tokens[order].astype(float), starts) for tokens in (prefill, decode))
    longest = np.maximum.reduceat(decode[order], starts)
    place = np.minimum(_mixed(before, after), _latest(longest, after.sum(), shape))
    return order[np.argsort(place[unit], kind="stable")]


def units(joint: Ints, depth: int, limit: int) -> Ints:
    """The number of each row's unit, which moves as a whole: the widest group that has at most `limit` rows. Of a wider
    one each part may go its way, since so many rows pay for its prefix; what is all the same is cut at `limit`."""
    level = np.full(len(joint), depth + 1)
    place = np.zeros(len(joint), np.int64)  # in its narrowest group
    for wanted in range(depth, 0, -1):
        starts = np.flatnonzero(joint < wanted)
        run = np.cumsum(joint < wanted) - 1
        if wanted == depth:
            place = np.arange(len(joint)) - starts[run]
        level[np.bincount(run)[run] <= limit] = wanted
    begins = np.diff(level, prepend=0) != 0
    begins |= joint < np.minimum(level, depth)
    begins |= (level > depth) & (place % limit == 0)
    number: Ints = np.cumsum(begins) - 1
    return number


def _mixed(prefill: Floats, decode: Floats) -> Floats:
    """Where each unit stands in the batch, from 0 to 1: units of each kind in their order, kinds side by side."""
    shares = [tokens / max(tokens.sum(), 1.0) for tokens in (prefill, decode)]
    work = shares[0] + shares[1]
    ratio = (shares[1] + 1e-12) / (shares[0] + 1e-12)
    place = np.empty(len(work))
    decoding, prefilling = ratio > _UNLIKE, ratio < 1 / _UNLIKE
    for kind in (decoding, prefilling, ~decoding & ~prefilling):
        done = np.cumsum(work[kind])
        place[kind] = (done - work[kind] / 2) / max(done[-1] if len(done) else 0.0, 1e-12)
    return place


def _latest(longest: Ints, decode: float, shape: Shape) -> Floats:
    """The place by which each unit has to begin; below 0 for those that are the longer the better placed first."""
    steps = max(decode / (shape.replicas * shape.seats), float(longest.max()), 1.0)
    place: Floats = 1 - longest.astype(np.float64) * (_HEADROOM / steps)
    return place
