"""Engines that cannot start: bounded tries, the reason, and what becomes of the shards. Without Ray."""

from __future__ import annotations

import time
from pathlib import Path

import pytest
from stream_world import BATCH, World

from lsi_ray.engine.simulated import SimulatedReplica
from lsi_ray.errors import EngineError
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.stream import keeper
from lsi_ray.stream.packet import to_block
from lsi_ray.stream.ports import Replica


class Starts:
    """Engines start while `works`; `tried` counts the starts."""

    works = True
    tried = 0


@pytest.fixture
def starts(monkeypatch: pytest.MonkeyPatch) -> Starts:
    starts, start = Starts(), SimulatedReplica.start

    async def maybe(engine: SimulatedReplica) -> None:
        starts.tried += 1
        if not starts.works:
            raise EngineError("no such weights", code="engine_start_failed")
        await start(engine)

    monkeypatch.setattr(SimulatedReplica, "start", maybe)
    monkeypatch.setattr(keeper, "_REST_S", 0.01)
    return starts


def another(world: World, *, age_s: float = 0.0) -> None:
    world.ledger.present["other"] = Replica("other", "ready", "", {}, time.time() - age_s)


def test_a_replica_that_is_alone_says_why_after_three_tries(tmp_path: Path, starts: Starts) -> None:
    world = World(tmp_path, ["a"])
    starts.works = False
    with pytest.raises(EngineError, match="no such weights"):
        world.generate()
    assert starts.tried == 3
    assert world.ledger.notes[-1] == ("failed", "no such weights")


def test_one_of_several_hands_its_shards_back_without_blame(tmp_path: Path, starts: Starts) -> None:
    world = World(tmp_path, ["a", "b"])
    another(world)
    starts.works = False
    sick = world.generate()
    for _ in range(3):
        (lease,) = world.ledger.lease(world.session, 8, 8).leases
        assert lease.attempt == 1
        assert list(sick(world.render(to_block(lease)))) == []
    starts.works = True
    world.run(world.generate())
    assert world.ledger.progress(BATCH).completed == 2


def test_it_is_tried_again_later_and_may_get_well(
    tmp_path: Path, starts: Starts, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(keeper, "_RETRY_S", 0.0)
    world = World(tmp_path, ["a", "b"])
    another(world)
    starts.works = False
    sick = world.generate()
    starts.works = True
    world.run(sick)
    assert starts.tried == 4
    assert world.ledger.batch(BATCH).status == BatchStatus.FINALIZING


def test_an_engine_that_dies_and_cannot_be_replaced_keeps_what_was_answered(tmp_path: Path, starts: Starts) -> None:
    prompts = ["a", "b", "[[lsi:dead]]", "d"]
    world = World(tmp_path, prompts)
    another(world)
    sick = world.generate()
    starts.works = False
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    for block in sick(world.render(to_block(lease))):
        world.commit(block)
    assert starts.tried == 1 + 3
    starts.works = True
    world.run(world.generate(), most_crashes=3)
    assert world.contents()[2] == "quarantined"


@pytest.mark.parametrize("other", [None, "failed", "silent"])
def test_without_another_engine_the_reason_ends_the_session(tmp_path: Path, starts: Starts, other: str | None) -> None:
    world = World(tmp_path, ["[[lsi:dead]]"])
    sick = world.generate()
    starts.works = False
    if other == "failed":
        world.ledger.present["other"] = Replica("other", "failed", "no such weights", {}, time.time())
    if other == "silent":
        another(world, age_s=200)
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    with pytest.raises(EngineError, match="no such weights"):
        list(sick(world.render(to_block(lease))))
