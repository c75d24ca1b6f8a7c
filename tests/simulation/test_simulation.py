"""The service under faults by seed; the long part is `python benchmarks/reliability.py`."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest
from crash_points import left_open, points_every
from sim_bugs import BUGS
from simulate import simulate

SEEDS = 1000
BLOCKS = 20
EXITS_EVERY = 60
RARE = {"blame_without_fencing", "packed_at_every_try"}
"""Found in hundreds of seeds, not in a few: benchmarks/reliability.py looks for them."""


@pytest.mark.parametrize("block", range(BLOCKS))
def test_no_order_of_events_breaks_an_invariant(block):
    size = SEEDS // BLOCKS
    for seed in range(block * size, (block + 1) * size):
        outcome = simulate(seed)
        assert not outcome.broken, outcome.report()


@pytest.mark.parametrize("name", sorted(BUGS.keys() - RARE))
def test_a_planted_bug_is_found(name):
    for seed in range(1000):
        if broken := simulate(seed, bug=BUGS[name]()).broken:
            print(f"{name} is found with {seed + 1} seeds: {broken}")
            return
    pytest.fail(f"{name} is not found with 1,000 seeds")


def test_a_seed_replays_exactly_in_any_process():
    """Another process has other hashes, another memory and another past."""
    here = [simulate(seed) for seed in (3, 17, 18, 19)]
    assert [simulate(outcome.seed).digest for outcome in here] == [outcome.digest for outcome in here]
    assert len({outcome.digest for outcome in here}) == len(here)
    program = Path(__file__).with_name("simulate.py")
    there = subprocess.run([sys.executable, program, "17"], capture_output=True, text=True, check=True, timeout=60)
    assert re.search(r"trace (\w+)$", there.stdout.strip()).group(1) == here[1].digest


def test_no_file_of_a_batch_that_is_gone_stays_open():
    """It would keep its place on the disk, and each batch a descriptor of its process."""
    assert left_open() == []


def test_an_exit_at_any_step_on_the_disk_leaves_before_or_after():
    """A process is killed or the power cut, before a step, in its middle or after it: every 60 steps of a life, with
    another first step each time. benchmarks/reliability.py ends a life of its own at every step and in every way."""
    exits = 0
    for first in range(1, EXITS_EVERY):
        outcome = points_every(EXITS_EVERY, first, in_url=first % 2 == 0)
        assert not outcome.broken, f"first exit at step {first}\n{outcome.report()}"
        exits += outcome.happened["exits"]
    assert exits >= 500
