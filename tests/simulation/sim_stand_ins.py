"""What stands in for time, chance, disk, network and metrics while a world is simulated."""

from __future__ import annotations

import logging
import secrets
import uuid
from collections.abc import Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from dataclasses import replace
from types import SimpleNamespace
from typing import TYPE_CHECKING
from unittest.mock import patch

from sim_hooks import watching

from lsi_ray import intake
from lsi_ray.service import delivery_job
from lsi_ray.stream import commit, render

if TYPE_CHECKING:
    from sim_world import World

EPOCH = 3_000_000_000.0  # later than any file that was not synced


class Clock:
    """The one clock of all processes; it jumps when somebody sets it."""

    def __init__(self) -> None:
        self.now = self.latest = EPOCH

    def __call__(self) -> float:
        return self.now

    def pass_time(self, seconds: float) -> None:
        self.now += seconds
        self.latest = max(self.latest, self.now)


class _Unmeasured:
    """In place of metrics, which want Ray."""

    def __init__(self, _model: str) -> None:
        pass

    def took(self, *_: object) -> None:
        pass

    def media(self, _size: int) -> None:
        pass

    def timed(self, _stage: str) -> AbstractContextManager[None]:
        return nullcontext()


def _nothing(*_: object) -> None:
    """In place of what prepares a worker process: ours is not one."""


@contextmanager
def simulated(world: World) -> Iterator[None]:
    """Time, chance, disk and network of the product in the hands of this world."""
    names = world.names
    policy = {"sleep": world.clock.pass_time, "clock": world.clock, "jitter": world.dice.uniform}
    retry = replace(delivery_job._RETRY, **policy)
    options = replace(delivery_job.DEFAULT_OPTIONS, now=world.clock, retry=retry)
    disabled = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    with ExitStack() as stack:
        for target, name, value in (
            (secrets, "token_hex", lambda size: f"{names.getrandbits(8 * size):0{2 * size}x}"),
            (uuid, "uuid4", lambda: uuid.UUID(int=names.getrandbits(128))),
            (delivery_job, "_RETRY", retry),
            (delivery_job, "DEFAULT_OPTIONS", options),
            (delivery_job, "time", SimpleNamespace(time=world.clock)),
            (intake, "DEFAULT_OPTIONS", options),
            (render, "prepare_process", _nothing),
            (commit, "prepare_process", _nothing),
            (render, "StageMetrics", _Unmeasured),
            (commit, "StageMetrics", _Unmeasured),
        ):
            stack.enter_context(patch.object(target, name, value))
        stack.enter_context(watching(world.disk))
        stack.enter_context(world.net.answering())
        try:
            yield
        finally:
            logging.disable(disabled)
