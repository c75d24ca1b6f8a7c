"""Where a plan is cut into shards. What is in one shard runs in one replica, so cuts go where least is shared."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.order import Ints, Shape


def smallest_shard(shard_rows: int) -> int:
    """Rows of a shard near the end of its batch, where rows are light: a quarter."""
    return max(1, shard_rows // 4)


def shard_stops(joint: Ints, rendered_bytes: NDArray[np.unsignedinteger], shape: Shape) -> tuple[int, ...]:
    """The end of each shard: after about `shard_rows` rows or `shard_bytes` bytes, at the weakest joint from half of
    that to twice that, so that a group is parted only if it is larger than that.

    Towards the end shards become smaller, a quarter of a replica's share of what is left, down to a quarter: the last
    rows are spread over all replicas, and those of a small batch over all render workers.
    """
    rows = len(joint)
    done = np.concatenate(([0], np.cumsum(rendered_bytes, dtype=np.int64)))
    at, stops = 0, list[int]()
    while at < rows:
        aim, most = _bounds(at, rows, done, shape)
        stops.append(at := _weakest(joint, at + max(1, (aim - at + 1) // 2), aim, most))
    return tuple(stops)


def _bounds(at: int, rows: int, done: Ints, shape: Shape) -> tuple[int, int]:
    """Where the shard from `at` should end, and where it must have ended."""
    least = smallest_shard(shape.shard_rows)
    aim_rows = min(max(math.ceil((rows - at) / (4 * shape.replicas)), least), shape.shard_rows)
    by_bytes = [int(np.searchsorted(done, done[at] + times * shape.shard_bytes, "right")) - 1 for times in (1, 2)]
    aim, most = (max(at + 1, min(at + times * aim_rows, by_bytes[times - 1], rows)) for times in (1, 2))
    return (rows, rows) if most == rows and rows - aim < least else (aim, most)


def _weakest(joint: Ints, first: int, aim: int, most: int) -> int:
    """Of [first, most] the place before which least is shared; of equal ones the last up to `aim`, or the next."""
    if aim >= len(joint):
        return aim
    places = np.arange(first, min(most, len(joint) - 1) + 1)
    strength = joint[places]
    weakest = places[strength == strength.min()]
    below = weakest[weakest <= aim]
    return int(below[-1] if len(below) else weakest[0])
