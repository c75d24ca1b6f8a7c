"""Engines that hang: the rows that did it end alone as `engine_timeout`, the others are answered. Without Ray."""

from __future__ import annotations

import random
from pathlib import Path

import pytest
from stream_world import BATCH, World, answer

from lsi_ray.ledger.states import BatchStatus

HANG_S = 0.08


def hung(world: World) -> int:
    return sum(state == "restarting" for state, _ in world.ledger.notes)


def check_neighbours(world: World, poison: set[int]) -> None:
    contents = world.contents()
    assert {row for row, value in contents.items() if value == "quarantined"} == poison
    answered = {row: answer(record).split()[0] for row, record in contents.items() if row not in poison}
    assert answered == {row: f"r{row}" for row in answered}


@pytest.mark.parametrize("position", [0, 5, 15, 19])
def test_a_row_that_hangs_the_engine_is_isolated_in_three_crashes(tmp_path: Path, position: int) -> None:
    prompts = [f"question {number}" for number in range(20)]
    prompts[position] = "[[lsi:hang]]"
    world = World(tmp_path, prompts, shard_rows=16, hang_timeout_s=HANG_S)
    world.run(world.generate(), most_crashes=3)
    check_neighbours(world, {position})
    (failure,) = world.ledger.row_failures(BATCH)
    assert failure.code == "engine_timeout"
    assert "no sign of life for 0.08 s" in failure.message
    assert hung(world) == 3


def test_a_batch_of_nothing_but_poison_ends(tmp_path: Path) -> None:
    world = World(tmp_path, ["[[lsi:hang]]"] * 6, shard_rows=4, hang_timeout_s=HANG_S)
    world.run(world.generate(), most_crashes=18)
    check_neighbours(world, set(range(6)))
    assert world.ledger.batch(BATCH).status == BatchStatus.FINALIZING


def test_each_row_ends_by_the_code_of_its_last_crash(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print("seed", seed)
    hangs, dies = random.Random(seed).sample(range(24), 2)
    prompts = [f"question {number}" for number in range(24)]
    prompts[hangs], prompts[dies] = "[[lsi:hang]]", "[[lsi:dead]]"
    world = World(tmp_path, prompts, shard_rows=8, hang_timeout_s=HANG_S)
    world.run(world.generate(), most_crashes=6)
    check_neighbours(world, {hangs, dies})
    codes = {failure.position: failure.code for failure in world.ledger.row_failures(BATCH)}
    assert codes == {hangs: "engine_timeout", dies: "engine_crashed"}


def test_a_slow_engine_is_never_killed(tmp_path: Path) -> None:
    """Each row takes more than ten times the timeout by itself."""
    world = World(tmp_path, ["[[lsi:slow:900]]"] * 4, shard_rows=4, hang_timeout_s=HANG_S)
    world.run(world.generate(), most_crashes=0)
    check_neighbours(world, set())
    assert world.ledger.progress(BATCH).rows_rerun == 0


def test_an_engine_that_loads_longer_than_the_timeout_is_waited_for(tmp_path: Path) -> None:
    world = World(tmp_path, ["a", "b"], start_seconds=0.3, hang_timeout_s=HANG_S)
    world.run(world.generate(), most_crashes=0)
    check_neighbours(world, set())
