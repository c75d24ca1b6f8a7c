"""The stages as plain objects over a real ledger and a real archive, without Ray and without vLLM."""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from pathlib import Path

import pytest
from stream_world import BATCH, World, answer

from lsi_ray.archive.rows import Request
from lsi_ray.config import Config, parse_config
from lsi_ray.engine import ReadMedia
from lsi_ray.engine.simulated import SimulatedRenderer, SimulatedReplica
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.stream.leases import leases
from lsi_ray.stream.packet import from_block, to_block


def test_every_row_is_answered_once_and_by_its_own_answer(tmp_path: Path) -> None:
    world = World(tmp_path, [f"question {n}" for n in range(10)])
    world.run(world.generate())
    contents = world.contents()
    assert [answer(contents[row]).split()[0] for row in range(10)] == [f"r{row}" for row in range(10)]
    assert world.ledger.batch(BATCH).status == BatchStatus.FINALIZING
    progress = world.ledger.progress(BATCH)
    assert (progress.completed, progress.failed, progress.rows_rerun) == (10, 0, 0)


def test_a_row_that_fails_in_the_engine_leaves_its_neighbours_alone(tmp_path: Path) -> None:
    world = World(tmp_path, ["a", "[[lsi:error]]", "c"])
    world.run(world.generate())
    contents = world.contents()
    assert contents[1]["response"]["status_code"] == 400
    assert [answer(contents[row]).split()[0] for row in (0, 2)] == ["r0", "r2"]


def test_a_row_that_kills_the_engine_is_isolated_and_its_neighbours_answered(tmp_path: Path) -> None:
    prompts = [f"question {n}" for n in range(20)]
    prompts[13] = "[[lsi:dead]]"
    world = World(tmp_path, prompts, shard_rows=16)
    world.run(world.generate(), most_crashes=3)
    contents = world.contents()
    assert contents.pop(13) == "quarantined"
    assert [answer(record).split()[0] for record in contents.values()] == [f"r{row}" for row in contents]
    (failure,) = world.ledger.row_failures(BATCH)
    assert failure.code == "engine_crashed"


def test_shards_that_come_while_the_engine_restarts_wait_for_it(tmp_path: Path) -> None:
    """Many shards in one replica, one of which kills the engine: no row of another becomes an error line."""
    prompts = [f"[[lsi:slow:{20 + n % 30}]] question {n}" for n in range(96)]
    prompts[7] = "[[lsi:dead]]"
    world = World(tmp_path, prompts, shard_rows=4, start_seconds=0.05)
    engine = world.generate()

    def work() -> None:
        for lease in leases(world.ledger, world.session, 8, sleep=lambda _: time.sleep(0.01)):
            with others:
                rendered = world.render(to_block(lease))
            for block in engine(rendered):
                with others:
                    world.commit(block)

    others = threading.Lock()  # render and commit are processes of their own in a stream, and run one call at a time
    threads = [threading.Thread(target=work) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=30)
    contents = world.contents()
    assert contents.pop(7) == "quarantined"
    assert [answer(record).split()[0] for record in contents.values()] == [f"r{row}" for row in contents]


def test_a_shard_delivered_twice_runs_once(tmp_path: Path) -> None:
    """Ray re-runs a task whose process died: the ledger learns of it by a second beginning."""
    world = World(tmp_path, ["a", "b", "c"])
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    rendered = world.render(to_block(lease))
    first, second = world.generate(), world.generate()
    second._name = "another process"
    blocks = list(first(rendered))
    assert list(second(rendered)) == []
    for block in blocks:
        world.commit(block)
    assert len(world.contents()) == 3
    assert world.ledger.progress(BATCH).rows_rerun == 0


def test_a_repeated_commit_changes_nothing_and_leaves_no_file(tmp_path: Path) -> None:
    world = World(tmp_path, ["a", "b"])
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    (block,) = world.generate()(world.render(to_block(lease)))
    world.commit(block)
    files = sorted(world.files.segments.iterdir())
    world.commit(block)
    assert sorted(world.files.segments.iterdir()) == files
    assert world.ledger.progress(BATCH).completed == 2


def test_packets_travel_unchanged() -> None:
    config: Config = parse_config({"model": "m", "engine": {"type": "simulated"}}, source="test")
    (back,) = from_block(to_block(config))
    assert back == config


@pytest.mark.parametrize("stage", ["render", "generate", "commit"])
def test_a_batch_that_is_erased_on_the_way_does_not_end_the_stream(tmp_path: Path, stage: str) -> None:
    world = World(tmp_path, [f"question {n}" for n in range(4)])
    engine = world.generate()
    (lease,) = world.ledger.lease(world.session, 8, 8).leases

    def erase_before(reached: str) -> None:
        if stage == reached:
            world.ledger.request_cancel(BATCH)
            world.ledger.deliver(BATCH, BatchStatus.CANCELLED)
            world.work.erase_batch(BATCH)
            world.ledger.erase(BATCH)

    erase_before("render")
    rendered = world.render(to_block(lease))
    erase_before("generate")
    for block in engine(rendered):
        erase_before("commit")
        assert world.commit(block).column("rows").to_pylist() == [0]
    assert not world.files.path.exists()


def test_every_row_reaches_the_engine_with_its_rank_and_its_callers_salt(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    world = World(tmp_path, ["a", "b", "c"])
    generate, seen = SimulatedReplica.generate, []

    async def spy(engine: SimulatedReplica, rendered: bytes, request_id: str, rank: int, cache_salt: str) -> bytes:
        seen.append((rank, cache_salt))
        return await generate(engine, rendered, request_id, rank, cache_salt)

    render, callers = SimulatedRenderer.render, []

    async def ask(renderer: SimulatedRenderer, request: Request, read_media: ReadMedia, caller: str = "") -> bytes:
        callers.append(caller)
        return await render(renderer, request, read_media, caller)

    monkeypatch.setattr(SimulatedReplica, "generate", spy)
    monkeypatch.setattr(SimulatedRenderer, "render", ask)
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    list(world.generate()(world.render(to_block(replace(lease, rank=7, cache_salt="ann's")))))
    assert seen == [(7, "ann's")] * 3
    assert callers == ["ann's"] * 3


def test_a_suspect_lets_the_next_one_in_when_its_answers_are_durable(tmp_path: Path) -> None:
    """Or the next one's crash would be blamed on it, too."""
    world = World(tmp_path, ["a", "b"], shard_rows=2)
    world.ledger.lease(world.session, 8, 8)
    world.ledger.begin(world.session, 1, "gone")
    world.ledger.crash(world.session, [1], "its replica died")
    (lease,) = world.ledger.lease(world.session, 8, 8).leases
    assert lease.exclusive
    blocks = world.generate()(world.render(to_block(lease)))
    block, ended = next(blocks), threading.Event()
    waiting = threading.Thread(target=lambda: (list(blocks), ended.set()))
    waiting.start()
    assert not ended.wait(0.15)
    world.commit(block)
    assert ended.wait(5)
    waiting.join()
