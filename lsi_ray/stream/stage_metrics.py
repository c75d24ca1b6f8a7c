"""What the stages tell Prometheus, once per shard: 4 us each, nothing beside the milliseconds of a shard.

The table of all metrics is in docs/service.md.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal

from ray.util.metrics import Counter, Histogram

Stage = Literal["read", "render", "generate", "commit"]

_SHARD_S = [0.01, 0.03, 0.1, 0.3, 1, 3, 10, 30, 100, 300, 1000, 3600]


class StageMetrics:
    def __init__(self, model: str) -> None:
        self._model = model
        self._seconds = Histogram("lsi_stage_seconds", "A shard in a stage.", _SHARD_S, ("model", "stage"))
        self._media = Counter("lsi_media_bytes_total", "Media read from archives.", ("model",))

    @contextmanager
    def timed(self, stage: Stage) -> Iterator[None]:
        begun = time.perf_counter()
        try:
            yield
        finally:
            self.took(stage, time.perf_counter() - begun)

    def took(self, stage: Stage, seconds: float) -> None:
        self._seconds.observe(seconds, {"model": self._model, "stage": stage})

    def media(self, size: int) -> None:
        if size:
            self._media.inc(size, {"model": self._model})
