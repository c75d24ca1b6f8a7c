"""The search over a simulated machine: a clock, and a speed that is a function of the candidate."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from lsi_ray.cli.tune_report import Said
from lsi_ray.config import Config, parse_config
from lsi_ray.engine.load import Load
from lsi_ray.errors import EngineError
from lsi_ray.tune.candidate import MEMORY, SEATS, TENSOR, TOKENS, Candidate
from lsi_ray.tune.measurement import Measurement
from lsi_ray.tune.search import Search

GIVEN = {SEATS: 64, TOKENS: 4096, TENSOR: 1, MEMORY: 0.9}
Speed = Callable[[dict[str, Any]], float | str]


def config(device: str = "cuda") -> Config:
    engine = {"type": "vllm", "device": device, "args": {"model": "m", **GIVEN}}
    return parse_config({"model": "m", "engine": engine}, source="test")


class Machine:
    """Each measurement takes a minute of a clock of its own."""

    def __init__(self, speed: Speed, load: Load | None = None) -> None:
        self.now = 0.0
        self.asked: list[Candidate] = []
        self._speed = speed
        self._load = load or Load()

    def clock(self) -> float:
        return self.now

    def measure(self, candidate: Candidate, beat: float) -> Measurement:
        del beat
        self.now += 60.0
        self.asked.append(candidate)
        values = {**GIVEN, **dict(candidate.changes)}
        speed = self._speed(values)
        if isinstance(speed, str):
            return Measurement(failure=speed)
        return Measurement(rows_per_s=speed, gpus=int(values[TENSOR]), load=self._load, effective=GIVEN)

    def search(self, minutes: float = 1000, gpus: int = 1, device: str = "cuda") -> Search:
        return Search(config(device), self.measure, minutes * 60, gpus=gpus, clock=self.clock)


def near(seats: int, tokens: int) -> Speed:
    """Fastest at this point; each step of two away costs a fifth."""

    def speed(values: dict[str, Any]) -> float:
        away = sum(abs(math.log2(values[name] / at)) for name, at in ((SEATS, seats), (TOKENS, tokens)))
        return 100 * 0.8**away

    return speed


@pytest.mark.parametrize(("seats", "tokens"), [(256, 16384), (64, 4096), (16, 4096), (64, 1024), (512, 2048)])
def test_it_finds_the_best_point_from_wherever_it_begins(seats, tokens):
    found = Machine(near(seats, tokens)).search().run()
    assert found.best is not None
    assert {**GIVEN, **dict(found.best.changes)} == {**GIVEN, SEATS: seats, TOKENS: tokens}


def test_nothing_is_measured_twice_but_the_best_and_the_given_at_the_end():
    machine = Machine(near(256, 16384))
    found = machine.search().run()
    *before, given, best = machine.asked
    assert (given, best) == (Candidate(), found.best)
    assert len(set(before)) == len(before)
    assert found.confirmed
    assert found.gain == pytest.approx(1 / 0.8**4 - 1)


def test_the_given_config_stays_where_nothing_beats_it_by_more_than_noise():
    found = Machine(lambda values: 100 + 2 * (values[SEATS] != 64)).search().run()
    assert found.best == Candidate()


def test_a_gain_that_the_second_look_does_not_see_is_none():
    machine = Machine(near(64, 4096))
    lucky = iter([100.0, 120.0] + [90.0] * 100)
    machine._speed = lambda _: next(lucky)
    found = machine.search().run()
    assert found.best == Candidate()


def test_time_bounds_the_search_and_leaves_room_for_the_comparison():
    machine = Machine(near(2048, 131_072))
    found = machine.search(minutes=8).run()
    assert machine.now <= 8 * 60
    assert found.confirmed
    assert found.gain is not None
    assert found.gain > 0
    assert found.ended == "the time was up"


def test_a_candidate_that_fails_is_left_behind_with_its_reason():
    machine = Machine(lambda values: "RuntimeError: no" if values[SEATS] > 128 else float(values[SEATS]))
    found = machine.search().run()
    assert found.best == Candidate(((SEATS, 128),))
    assert found.trials[Candidate(((SEATS, 256),))].failure == "RuntimeError: no"


def test_more_rows_at_once_are_not_tried_where_the_engine_never_ran_so_many():
    machine = Machine(lambda values: float(values[SEATS]), load=Load(running_max=40))
    machine.search().run()
    assert all(dict(candidate.changes).get(SEATS, 0) <= 64 for candidate in machine.asked)


@pytest.mark.parametrize(
    ("failure", "fits", "share"),
    [
        ("ValueError: No available memory for the cache blocks.", lambda share: share > 0.95, 0.97),
        ("OutOfMemoryError: CUDA out of memory. Tried to allocate", lambda share: share < 0.8, 0.78),
    ],
)
def test_a_config_that_does_not_start_gets_another_share_of_the_memory(failure, fits, share):
    machine = Machine(lambda values: 10.0 if fits(values[MEMORY]) else failure)
    found = machine.search(minutes=6).run()
    assert found.best is not None
    assert dict(found.best.changes)[MEMORY] == share
    assert found.given.failure == failure
    assert found.gain is None


def test_a_config_that_cannot_start_says_why():
    with pytest.raises(EngineError, match="unknown architecture"):
        Machine(lambda _: "ValueError: unknown architecture").search().run()


def test_two_gpus_must_be_twice_as_fast():
    fast = Machine(lambda values: 100.0 * values[TENSOR] ** 1.2).search(gpus=4).run()
    slow = Machine(lambda values: 100.0 * values[TENSOR] ** 0.8).search(gpus=4).run()
    assert fast.best == Candidate(((TENSOR, 4),))
    assert slow.best == Candidate()


@pytest.mark.parametrize(("gpus", "device"), [(1, "cuda"), (0, "cpu")])
def test_tensor_parallelism_is_left_alone_where_there_are_no_gpus_for_it(gpus, device):
    machine = Machine(lambda values: 100.0 * values[TENSOR])
    machine.search(gpus=gpus, device=device).run()
    assert all(TENSOR not in dict(candidate.changes) for candidate in machine.asked)


def test_an_interrupt_leaves_the_best_so_far():
    machine = Machine(near(256, 4096))
    measure = machine.measure

    def interrupted(candidate: Candidate, beat: float) -> Measurement:
        if candidate.changes == ((SEATS, 256),):
            raise KeyboardInterrupt
        return measure(candidate, beat)

    search = Search(config(), interrupted, 60_000.0, clock=machine.clock)
    with pytest.raises(KeyboardInterrupt):
        search.run()
    assert search.found.best == Candidate(((SEATS, 128),))


def test_rendering_the_sample_is_not_charged_to_later_candidates():
    machine = Machine(near(128, 4096))
    measure = machine.measure

    def rendering(candidate: Candidate, beat: float) -> Measurement:
        machine.now += 0 if machine.asked else 300
        seconds = 0 if machine.asked else 300
        return replace(measure(candidate, beat), render_s=seconds)

    Search(config(), rendering, 14 * 60.0, clock=machine.clock).run()
    assert len(machine.asked) >= 6


@pytest.mark.parametrize(
    ("speed", "minutes", "verdict"),
    [
        (lambda _: 100.0, 1, "Only the given config was measured (the time was up)"),
        (lambda values: 100.0 if values == GIVEN else "no", 60, "Nothing but the given config ran: 4 others failed"),
        (lambda _: 100.0, 60, "The given config is the best of 5"),
    ],
)
def test_the_verdict_says_how_much_is_behind_it(speed, minutes, verdict, capsys):
    found = Machine(speed).search(minutes=minutes).run()
    said = Said(as_json=False)
    said.table(found)
    said.conclusion(Path("given.yaml"), found, comments_kept=True)
    assert verdict in capsys.readouterr().out
