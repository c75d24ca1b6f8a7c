"""How often one caller may ask: a token bucket for each caller and kind of request.

Reads are counted by each replica of the API; writes by the service's actor, which every one of them reaches anyway, so
that LSI's one request a second is one, however many replicas there are. Who was told to wait is refused by the replica
itself until then: of a flood, one request in each such time reaches the actor.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lsi_ray.service.api.errors import LSI_PREFIX
from lsi_ray.service.api.settings import Rate, Rates
from lsi_ray.service.backend import WriteKind

READING = frozenset({"GET", "HEAD", "OPTIONS"})
Kind = WriteKind | Literal["reads"]


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """`clock` is monotonic. Keeps one small record for each caller that ever asked; callers are known accounts."""

    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._rates = rates
        self._buckets: dict[tuple[str, str], _Bucket] = {}
        self._mutex = threading.Lock()

    def wait_s(self, caller_id: str, kind: Kind) -> float:
        """0: the request may go on, and was counted; else how long to wait."""
        rate: Rate = getattr(self._rates, kind)
        with self._mutex:
            now = self.clock()
            bucket = self._buckets.setdefault((caller_id, kind), _Bucket(rate.burst, now))
            bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_second)
            bucket.at = now
            if bucket.tokens < 1:
                return (1 - bucket.tokens) / rate.per_second
            bucket.tokens -= 1
            return 0.0


class Told:
    """Until when callers were told to wait. No less exact than who told them: their allowance grows with time alone."""

    def __init__(self, clock: Callable[[], float]) -> None:
        self._clock = clock
        self._until: dict[tuple[str, str], float] = {}

    def wait(self, caller_id: str, kind: Kind, seconds: float) -> None:
        if seconds:
            self._until[caller_id, kind] = self._clock() + seconds

    def wait_s(self, caller_id: str, kind: Kind) -> float:
        """0: it may ask again."""
        left = self._until.get((caller_id, kind), 0.0) - self._clock()
        if left <= 0:
            self._until.pop((caller_id, kind), None)
        return max(0.0, left)


def write_kind(path: str) -> WriteKind:
    return "lsi_writes" if path.startswith(LSI_PREFIX) else "openai_writes"
