"""What the policy of sizing.py is asked, and what it said last.

Every five seconds, and at once when another model has work: a stream that waits for its first replica should not wait
for a clock, and speeds that were measured over minutes do not change faster.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from lsi_ray.service.deploy import Deployment
from lsi_ray.service.models_state import START_S, Work
from lsi_ray.service.sizing import Demand, Gpus, size

log = logging.getLogger(__name__)

_SIZE_S = 5.0


class Running(Protocol):
    """`Streams`, as far as it is looked at here."""

    def running(self) -> Mapping[str, int]: ...
    def gpus(self) -> Gpus: ...


class Sizer:
    """`stays`: of so many replicas of a model, those that stay loaded without work."""

    def __init__(
        self,
        deployment: Deployment,
        at_hand: Work,
        streams: Running,
        clock: Callable[[], float],
        *,
        stays: Callable[[str, int], int],
    ) -> None:
        self._deployment = deployment
        self._at_hand = at_hand
        self._streams = streams
        self._clock = clock
        self._stays = stays
        self._sized_at = float("-inf")
        self._sized_for: object = None
        self._gpus: Gpus | None = None
        self.wanted: dict[str, int] = {}
        """Of the models that run or are due."""

    def size(self, due: Collection[str], needed: Collection[str]) -> dict[str, int]:
        """`due`: models that may start; `needed`: those with work."""
        now, running = self._clock(), self._streams.running()
        models = sorted((due | running.keys()) & self._deployment.models.keys())
        asked = models, sorted(needed), sorted(running)
        if asked != self._sized_for or now - self._sized_at >= _SIZE_S:
            self._sized_for, self._sized_at = asked, now
            self._at_hand.stale()
            self._gpus = gpus = self._streams.gpus()
            demands = [self._demand(model, running.get(model, 0), model in needed, gpus) for model in models]
            self._say(wanted := size(demands, gpus, now))
            self.wanted = wanted
        return self.wanted

    def most(self, model: str) -> int:
        """Replicas that the cluster may hold of it, without the others."""
        config = self._deployment.config(model)
        if self._gpus is None or not config.engine.gpus:
            return config.replicas.max
        return min(config.replicas.max, max(1, self._gpus.most // config.engine.gpus))

    def _demand(self, model: str, now: int, needed: bool, gpus: Gpus) -> Demand:
        config = self._deployment.config(model)
        claims = tuple(self._at_hand.claims(model)) if needed else ()
        grows = config.engine.gpus and gpus.most > gpus.paid
        return Demand(
            model,
            config.engine.gpus,
            config.replicas.min,
            config.replicas.max,
            self._at_hand.meter(model).replica(),
            START_S + (self._deployment.settings.gpus.node_start_s if grows else 0.0),
            now,
            claims,
            self._stays(model, now),
        )

    def _say(self, wanted: dict[str, int]) -> None:
        for model, replicas in wanted.items():
            if replicas != self.wanted.get(model):
                log.info("%s should have %d replicas", model, replicas)
