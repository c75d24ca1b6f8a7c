from __future__ import annotations

import asyncio
import random

import pytest

from lsi_ray.archive.rows import Request
from lsi_ray.config import SimulatedEngine
from lsi_ray.engine.simulated import SimulatedRenderer, SimulatedReplica


def request(name: str, prompt: str) -> Request:
    body = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": prompt}]}
    return Request(0, 1, name, "/v1/chat/completions", body, ())


class Engine:
    """A started engine; `order` says who left it, one after another."""

    def __init__(self, **engine: object) -> None:
        self.config = SimulatedEngine(allow_scripts=True, **engine)  # type: ignore[arg-type]
        self.replica = SimulatedReplica(self.config)
        self.order: list[str] = []

    async def answer(self, name: str, rank: int = 0, prompt: str = "") -> None:
        renderer = SimulatedRenderer(self.config, "m")
        rendered = await renderer.render(request(name, prompt), lambda _: b"")
        await self.replica.generate(rendered, name, rank, "")
        self.order.append(name)


@pytest.mark.parametrize("seed", range(5))
def test_waiting_rows_are_served_by_rank_and_equals_as_they_came(seed: int) -> None:
    print("seed", seed)
    dice = random.Random(seed)
    ranks = [dice.randrange(4) for _ in range(40)]

    async def run() -> list[str]:
        engine = Engine(max_num_seqs=1)
        await engine.replica.start()
        first = asyncio.create_task(engine.answer("first", 99, "[[lsi:slow:20]]"))
        await asyncio.sleep(0.005)
        await asyncio.gather(first, *(engine.answer(str(number), rank) for number, rank in enumerate(ranks)))
        return engine.order

    expected = sorted(range(40), key=lambda number: (ranks[number], number))
    assert asyncio.run(run()) == ["first", *map(str, expected)]


def test_a_row_that_leaves_while_it_waits_takes_no_seat_along() -> None:
    async def run() -> list[str]:
        engine = Engine(max_num_seqs=2)
        await engine.replica.start()
        running = [asyncio.create_task(engine.answer(f"slow{n}", 0, "[[lsi:slow:20]]")) for n in range(2)]
        await asyncio.sleep(0.005)
        waiting = [asyncio.create_task(engine.answer(f"gone{n}")) for n in range(5)]
        await asyncio.sleep(0.005)
        for task in waiting:
            task.cancel()
        await asyncio.gather(*running, *(engine.answer(f"late{n}") for n in range(3)))
        return engine.order

    assert sorted(asyncio.run(run())) == ["late0", "late1", "late2", "slow0", "slow1"]
