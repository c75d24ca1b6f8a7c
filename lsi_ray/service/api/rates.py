"""How often one caller may ask: a token bucket for each caller and kind of request, in this process."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from lsi_ray.service.api.errors import LSI_PREFIX
from lsi_ray.service.api.settings import Rate, Rates

READING = frozenset({"GET", "HEAD", "OPTIONS"})


@dataclass(slots=True)
class _Bucket:
    tokens: float
    at: float


class RateLimiter:
    """`clock` is monotonic. Keeps one small record for each caller that ever asked; callers are known accounts."""

    def __init__(self, rates: Rates, clock: Callable[[], float]) -> None:
        self._rates = rates
        self._clock = clock
        self._buckets: dict[tuple[str, str], _Bucket] = {}

    def wait_s(self, caller_id: str, method: str, path: str) -> float:
        """0: the request may go on, and was counted; else how long to wait."""
        kind, rate = self._kind(method, path)
        now = self._clock()
        bucket = self._buckets.setdefault((caller_id, kind), _Bucket(rate.burst, now))
        bucket.tokens = min(rate.burst, bucket.tokens + (now - bucket.at) * rate.per_second)
        bucket.at = now
        if bucket.tokens < 1:
            return (1 - bucket.tokens) / rate.per_second
        bucket.tokens -= 1
        return 0.0

    def _kind(self, method: str, path: str) -> tuple[str, Rate]:
        if method in READING:
            return "reads", self._rates.reads
        if path.startswith(LSI_PREFIX):
            return "lsi_writes", self._rates.lsi_writes
        return "openai_writes", self._rates.openai_writes
