"""A model of the stream: shards go to the replica with the fewest of them, render workers decode what they have not.

Two ways to bound what is in a replica: `shards` open at once, each till its last row is done (as it was), or `rows`
of them, each till it is done itself (`Room`).
"""

from __future__ import annotations

from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass

from simulated.engine import Engine, Work


@dataclass(frozen=True, slots=True)
class Bounds:
    shards: int
    rows: int | None = None


class Replica:
    def __init__(self, engine: Engine, bounds: Bounds) -> None:
        self.engine = engine
        self._bounds = bounds
        self._open: dict[int, int] = {}
        self._queue: deque[list[Work]] = deque()

    @property
    def shards(self) -> int:
        return len(self._open) + len(self._queue)

    def takes(self) -> bool:
        return self.shards < self._bounds.shards + 2

    def give(self, shard: list[Work]) -> None:
        self._queue.append(shard)

    @property
    def idle(self) -> bool:
        return not self._open and not self._queue

    def step(self) -> list[Work]:
        while self._queue and self._fits(self._queue[0]):
            shard = self._queue.popleft()
            self._open[shard[0].shard] = len(shard)
            self.engine.waiting.extend(shard)
        done = self.engine.step()
        for work in done:
            self._open[work.shard] -= 1
            if not self._open[work.shard]:
                del self._open[work.shard]
        return done

    def _fits(self, shard: list[Work]) -> bool:
        if len(self._open) >= self._bounds.shards:
            return False
        return not self._open or self._bounds.rows is None or sum(self._open.values()) + len(shard) <= self._bounds.rows


def run(shards: Sequence[list[Work]], replicas: list[Replica], outstanding: int) -> list[float]:
    """When each row finished, ascending. At most `outstanding` rows are leased and not answered."""
    left = deque(shards)
    finished: list[float] = []
    total, leased = sum(map(len, shards)), 0
    while True:
        while left and leased + len(left[0]) <= len(finished) + outstanding:
            takers = [one for one in replicas if one.takes()]
            if not takers:
                break
            leased += len(left[0])
            min(takers, key=lambda one: one.shards).give(left.popleft())
        busy = [one for one in replicas if not one.idle]
        if len(finished) == total:
            return sorted(finished)
        replica = min(busy, key=lambda one: one.engine.time)
        for idle in replicas:  # one without work has waited
            if idle.idle:
                idle.engine.time = max(idle.engine.time, replica.engine.time)
        done = replica.step()
        finished += [replica.engine.time] * len(done)


def decoded(shards: Sequence[Sequence[Sequence[tuple[str, int]]]], workers: int, cache_bytes: int) -> int:
    """Files decoded: `shards` of rows of (file, bytes when decoded), which take turns at the workers."""
    caches: list[OrderedDict[str, int]] = [OrderedDict() for _ in range(workers)]
    count = 0
    for number, shard in enumerate(shards):
        cache = caches[number % workers]
        for name, size in (one for row in shard for one in row):
            if name in cache:
                cache.move_to_end(name)
                continue
            count += 1
            cache[name] = size
            while sum(cache.values()) > cache_bytes:
                cache.popitem(last=False)
    return count
