from __future__ import annotations

import pytest

from lsi_ray.engine.vllm.schema_budget import ROW_EARNS_S, SECOND_EARNS_S, SchemaBudget


class Clock:
    now = 100.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


def run(budget: SchemaBudget, caller: str, rows: int, cost: float) -> int:
    """Rows of which each has another schema that costs so much: how many are compiled."""
    compiled = 0
    for _ in range(rows):
        if budget.row(caller):
            budget.spend(caller, cost)
            compiled += 1
    return compiled


def test_schemas_that_cost_what_is_usual_never_run_out(clock: Clock) -> None:
    assert run(SchemaBudget(10, clock), "a", 20_000, ROW_EARNS_S * 0.99) == 20_000


def test_slow_ones_run_out_and_are_few_in_the_end(clock: Clock) -> None:
    compiled = run(SchemaBudget(400, clock), "a", 100_000, 40)
    assert compiled <= 400 / 40 + 100_000 * ROW_EARNS_S / 40 + 1
    assert compiled * 40 < 6_000  # seconds; a hundred thousand of them would take 4,000,000


def test_callers_do_not_share(clock: Clock) -> None:
    budget = SchemaBudget(10, clock)
    assert run(budget, "a", 100, 40) == 1
    assert run(budget, "b", 1, 40) == 1


def test_time_gives_back_up_to_the_start(clock: Clock) -> None:
    budget = SchemaBudget(10, clock)
    budget.spend("a", 30)
    assert not budget.row("a")
    clock.now += 20 / SECOND_EARNS_S
    assert budget.row("a")
    clock.now += 1e9
    assert run(budget, "a", 5, 9) == 2


def test_the_callers_that_are_remembered_are_bounded(clock: Clock) -> None:
    budget = SchemaBudget(10, clock)
    for number in range(10_000):
        budget.row(str(number))
    assert len(budget._accounts) <= 4096
