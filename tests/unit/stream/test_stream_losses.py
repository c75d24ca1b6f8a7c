"""Engines that are lost beside a shard rather than in it: no shard waits for ever, and none is blamed."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from stream_world import World

from lsi_ray.engine import simulated
from lsi_ray.errors import EngineError
from lsi_ray.stream.packet import from_block, to_block


@pytest.fixture(autouse=True)
def _nobody_commits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lsi_ray.stream.generate._COMMIT_S", 0.0)
    monkeypatch.setattr("lsi_ray.stream.generate._BLAME_S", 0.0)


def shards(world: World, count: int) -> list[Any]:
    answer = world.ledger.lease(world.session, 100, 100)
    return [world.render(to_block(lease)) for lease in answer.leases][:count]


def as_suspect(block: Any) -> Any:
    (packet,) = from_block(block)
    packet.exclusive = True
    return to_block(packet)


def crashes(world: World, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    blamed: list[Any] = []
    crash = world.ledger.crash

    def note(*args: Any, **kwargs: Any) -> Any:
        blamed.append(args)
        return crash(*args, **kwargs)

    monkeypatch.setattr(world.ledger, "crash", note)
    return blamed


def test_a_suspect_is_not_blamed_for_an_engine_that_was_dead_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, ["a"] * 4)
    engine = world.generate()
    blamed = crashes(world, monkeypatch)
    engine._keeper._engine._up = False  # as a CUDA error that nobody has met yet

    rows = [row for block in engine(as_suspect(shards(world, 1)[0])) for row in from_block(block)[0].rows]

    assert len(rows) == 4
    assert not blamed
    assert sum(state == "restarting" for state, _ in world.ledger.notes) == 1


def test_an_engine_that_dies_of_a_suspect_after_its_answer_is_replaced_before_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, ["a"] * 8)
    engine = world.generate()
    blamed = crashes(world, monkeypatch)
    first, second = shards(world, 2)
    for _ in engine(as_suspect(first)):
        engine._keeper._engine._up = False

    assert sum(len(from_block(block)[0].rows) for block in engine(as_suspect(second))) == 4
    assert not blamed


class Mute(simulated.SimulatedReplica):
    """Hangs when told, and when killed says nothing to the rows in it, as a killed vLLM may."""

    hang = False
    pinged = threading.Event()

    async def generate(self, rendered: bytes, request_id: str, rank: int, cache_salt: str) -> bytes:
        if type(self).hang:
            await asyncio.Event().wait()
        return await super().generate(rendered, request_id, rank, cache_salt)

    async def ping(self) -> None:
        if type(self).hang:
            await asyncio.Event().wait()
        await super().ping()
        type(self).pinged.set()

    async def kill(self) -> None:
        type(self).hang = False
        await super().kill()


def test_a_shard_that_enters_between_the_word_and_the_kill_is_ended_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(simulated, "SimulatedReplica", Mute)
    monkeypatch.setattr(Mute, "hang", False)
    monkeypatch.setattr(Mute, "pinged", threading.Event())
    world = World(tmp_path, ["a"] * 8, hang_timeout_s=0.4)
    engine = world.generate()
    first, second = shards(world, 2)
    assert Mute.pinged.wait(10)  # before its first answer it loads, for as long as it takes
    Mute.hang = True
    told, late = threading.Event(), threading.Event()
    crash = world.ledger.crash

    def slow_crash(*args: Any, **kwargs: Any) -> Any:
        told.set()
        assert late.wait(10)
        return crash(*args, **kwargs)

    monkeypatch.setattr(world.ledger, "crash", slow_crash)
    threads = [run(engine, first)]
    assert told.wait(10)
    threads.append(run(engine, second))  # into an engine that is already given up
    until(lambda: len(engine._keeper._listeners) == 2)
    late.set()
    for thread in threads:
        thread.join(10)
        assert not thread.is_alive()


def run(engine: Any, block: Any) -> threading.Thread:
    thread = threading.Thread(target=lambda: list(engine(block)), daemon=True)
    thread.start()
    return thread


def until(condition: Callable[[], bool]) -> None:
    pause = threading.Event()
    for _ in range(1000):
        if condition():
            return
        pause.wait(0.01)
    pytest.fail("it did not come")


def test_a_sick_worker_ends_the_attempt_and_not_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, ["a"] * 4)
    (lease,) = world.ledger.lease(world.session, 100, 100).leases

    async def no_child(*_: Any) -> bytes:
        raise EngineError("the process that decodes media did not start: Resource temporarily unavailable")

    monkeypatch.setattr(world.render._renderer, "render", no_child)
    with pytest.raises(EngineError, match="did not start"):
        world.render(to_block(lease))


def test_storage_that_fails_ends_the_attempt_and_not_the_row(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    world = World(tmp_path, ["a"] * 4)
    (lease,) = world.ledger.lease(world.session, 100, 100).leases

    def stale(*_: Any) -> bytes:
        raise OSError(116, "Stale file handle")

    monkeypatch.setattr("os.pread", stale)
    with pytest.raises(Exception, match="Stale file handle"):
        world.render(to_block(lease))
