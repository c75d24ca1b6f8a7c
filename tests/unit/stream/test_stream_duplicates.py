"""Rows that ask the same: computed once, answered to each, whatever happens to them."""

from __future__ import annotations

import random
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from stream_world import BATCH, World, answer

from lsi_ray.archive import row_table
from lsi_ray.delivery import output_lines
from lsi_ray.engine.simulated import SimulatedReplica
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.records import Lease
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.stream.packet import from_block, to_block


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The rows that came to an engine."""
    ids: list[str] = []
    generate = SimulatedReplica.generate

    async def noting(self: SimulatedReplica, rendered: bytes, request_id: str, *rest: Any) -> bytes:
        ids.append(request_id)
        return await generate(self, rendered, request_id, *rest)

    monkeypatch.setattr(SimulatedReplica, "generate", noting)
    return ids


def lease(world: World) -> Lease:
    (found,) = world.ledger.lease(world.session, 1000, 1000).leases
    return found


def test_each_is_answered_under_its_own_name_and_told(tmp_path: Path, computed: list[str]) -> None:
    world = World(tmp_path, ["a", "b", "a", "a", "b", "c"], shard_rows=64, greedy=True)
    world.run(world.generate())
    contents = world.contents()
    bodies = [contents[row]["response"]["body"] for row in range(6)]
    assert [contents[row]["custom_id"] for row in range(6)] == [f"r{row}" for row in range(6)]
    assert len({body["id"] for body in bodies}) == 6
    assert [body["usage"].get("deduplicated", False) for body in bodies] == [False, False, True, True, True, False]
    assert [answer(contents[row]) for row in (2, 3, 4)] == [answer(contents[row]) for row in (0, 0, 1)]
    assert bodies[2]["usage"] == bodies[0]["usage"] | {"deduplicated": True}
    assert len(computed) == 3
    progress = world.ledger.progress(BATCH)
    assert (progress.completed, progress.deduplicated) == (6, 3)
    check_invariants(world.ledger)


def test_rows_that_sample_are_each_computed(tmp_path: Path, computed: list[str]) -> None:
    world = World(tmp_path, ["a"] * 5, shard_rows=64)
    world.run(world.generate())
    assert (len(computed), world.ledger.progress(BATCH).deduplicated) == (5, 0)


def test_one_that_fails_fails_for_all_each_with_its_line(tmp_path: Path, computed: list[str]) -> None:
    world = World(tmp_path, ["[[lsi:error]]", "b", "[[lsi:error]]"], shard_rows=64, greedy=True)
    world.run(world.generate())
    contents = world.contents()
    messages = [contents[row]["response"]["body"]["error"]["message"] for row in (0, 2)]
    assert [message.split(":")[0] for message in messages] == ["Line 1", "Line 3"]
    assert len(computed) == 2
    assert world.ledger.progress(BATCH).deduplicated == 0


def test_the_others_are_answered_when_the_first_has_been_by_somebody_else(tmp_path: Path, computed: list[str]) -> None:
    world = World(tmp_path, ["a"] * 4, shard_rows=64, greedy=True)
    engine, rendered = world.generate(), world.render(to_block(lease(world)))
    (packet,) = from_block(rendered)
    (stale,) = engine(to_block(replace(packet, rows=packet.rows[:1])))
    world.commit(stale)
    for block in engine(rendered):
        world.commit(block)
    contents = world.contents()
    assert [contents[row]["custom_id"] for row in range(4)] == ["r0", "r1", "r2", "r3"]
    assert len(computed) == 2
    assert world.ledger.progress(BATCH).deduplicated == 2
    check_invariants(world.ledger)


def test_what_they_share_travels_once(tmp_path: Path) -> None:
    world = World(tmp_path, ["long " * 1000] * 50, shard_rows=64, greedy=True)
    (packet,) = from_block(world.render(to_block(lease(world))))
    packet.rows = [replace(row, payload=b"x" * 100_000 if row is packet.rows[0] else None) for row in packet.rows]
    packet.rows = [replace(row, payload=packet.rows[0].payload) for row in packet.rows]
    assert to_block(packet).nbytes < 150_000
    (back,) = from_block(to_block(packet))
    assert len({id(row.payload) for row in back.rows}) == 1


@pytest.mark.parametrize("seed", range(6))
def test_any_plan_gives_the_same_output(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, seed: int) -> None:
    """To the byte, but for who was computed and who shares. What runs where and when shows nowhere."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    prompts = [rng.choice(["a", "b", "[[lsi:error]] x", f"own {n}"]) for n in range(30)]

    def output(folder: str) -> bytes:
        world = World(tmp_path / folder, prompts, shard_rows=rng.choice([1, 4, 7, 64]))
        world.run(world.generate())
        lines = output_lines(world.ledger.batch(BATCH), BatchStatus.COMPLETED, world.files, world.ledger, world.config)
        return b"\n".join(line.line for line in lines)

    def shuffled(keys: Any, *rest: Any) -> Any:  # noqa: ARG001
        return np.array(rng.sample(range(keys.shape[1]), keys.shape[1]))

    planned = output("planned")
    monkeypatch.setattr(row_table, "running_order", shuffled)
    assert output("shuffled") == planned


@pytest.mark.parametrize("seed", range(12))
def test_any_mix_is_answered_exactly_once(tmp_path: Path, seed: int) -> None:
    """Good, failing and killing rows, many of them the same, in any shards."""
    print(f"seed {seed}")
    rng = random.Random(seed)
    choice = ["a", "b", "c", "[[lsi:error]] x", "[[lsi:slow:2]] y"] + ["[[lsi:dead]]"] * (seed % 3 == 0)
    prompts = [rng.choice(choice) for _ in range(rng.choice([5, 30]))]
    world = World(tmp_path, prompts, shard_rows=rng.choice([1, 3, 8]), greedy=True)
    world.run(world.generate(), most_crashes=100)
    contents = world.contents()
    failures = {failure.position for failure in world.ledger.row_failures(BATCH)}
    assert len(failures) == prompts.count("[[lsi:dead]]")
    for row, prompt in enumerate(prompts):
        if prompt == "[[lsi:dead]]":
            assert contents[row] == "quarantined"
            continue
        assert contents[row]["custom_id"] == f"r{row}"
        assert contents[row]["response"]["status_code"] == (400 if "error" in prompt else 200)
    digests = {(p, answer(contents[n]).split()[1]) for n, p in enumerate(prompts) if p in ("a", "b", "c")}
    assert len(digests) == len({prompt for prompt, _ in digests}), "equal prompts, equal answers"
    bodies = [record["response"]["body"] for record in contents.values() if record != "quarantined"]
    shared = sum(body.get("usage", {}).get("deduplicated", False) for body in bodies)
    assert world.ledger.progress(BATCH).deduplicated == shared
    assert world.ledger.progress(BATCH).rows_rerun == 0 or "[[lsi:dead]]" in prompts
    check_invariants(world.ledger)
