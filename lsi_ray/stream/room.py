"""How much is in the engine, and waits before it."""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

_NOTHING = 1e-6  # what sums of fractions leave


class Room:
    """What may be in the engine and wait before it, in loads (packet.py). Each row gives its part back as it ends, so
    that one long row does not keep the places of its whole shard.

    Shards enter by (rank, arrival); a shard that is larger than all the room enters alone.
    """

    def __init__(self, size: float) -> None:
        self._condition = threading.Condition()
        self._size = size
        self._taken = 0.0
        self._waiting: list[tuple[int, int]] = []
        self._arrivals = 0

    @contextmanager
    def taken(self, load: float, rank: int) -> Iterator[Callable[[float], None]]:
        """The room for one shard; yields what gives a part of it back."""
        left = load

        def give_back(part: float) -> None:
            nonlocal left
            part = min(part, left)
            left -= part
            self._give(part)

        self._take(load, rank)
        try:
            yield give_back
        finally:
            self._give(left)

    def _take(self, load: float, rank: int) -> None:
        with self._condition:
            self._arrivals += 1
            ticket = (rank, self._arrivals)
            heapq.heappush(self._waiting, ticket)
            self._condition.wait_for(lambda: self._waiting[0] == ticket and self._fits(load))
            heapq.heappop(self._waiting)
            self._taken += load
            self._condition.notify_all()

    def _fits(self, load: float) -> bool:
        return self._taken < _NOTHING or self._taken + load <= self._size

    def _give(self, load: float) -> None:
        with self._condition:
            self._taken -= load
            self._condition.notify_all()
