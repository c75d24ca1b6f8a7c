"""What `Engine.generate` promises of its rank is what the queue of the installed vLLM does."""

from __future__ import annotations

import random
from types import SimpleNamespace
from typing import Any

import pytest


@pytest.fixture(scope="module")
def queue_module() -> Any:
    from lsi_ray.config import load_config
    from lsi_ray.engine.vllm.config import set_environment

    config = load_config(None)
    set_environment(config.engine)  # type: ignore[arg-type]
    from vllm.v1.core.sched import request_queue

    return request_queue


def popped(module: Any, ranks: list[int]) -> list[int]:
    """The order in which requests that arrive one after another leave the waiting queue."""
    from vllm.v1.request import Request

    class Waiting(SimpleNamespace):
        __lt__ = Request.__lt__

    queue = module.create_request_queue(module.SchedulingPolicy.PRIORITY)
    for number, rank in enumerate(ranks):
        queue.add_request(Waiting(priority=rank, arrival_time=float(number), request_id=str(number)))
    return [int(queue.pop_request().request_id) for _ in ranks]


def test_equal_ranks_are_first_come_first_served(queue_module: Any) -> None:
    assert popped(queue_module, [1_700_000_000] * 300) == list(range(300))


def test_a_smaller_rank_goes_first(queue_module: Any) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    dice = random.Random(seed)
    ranks = [dice.randrange(5) for _ in range(300)]
    assert popped(queue_module, ranks) == sorted(range(300), key=lambda number: (ranks[number], number))
