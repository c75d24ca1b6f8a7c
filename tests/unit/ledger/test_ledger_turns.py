from __future__ import annotations

import random

import pytest

from lsi_ray.ledger.turns import engine_rank, urgency


def batches_of(answer):
    return [lease.batch_id for lease in answer.leases]


def test_callers_with_equal_claims_share_the_engine(work):
    for number in range(3):
        work.started(f"a{number}", 640, caller="ann", deadline=87_400.0 + number)
    work.started("b", 640, caller="bob", deadline=88_000.0)
    session = work.ledger.open_session("m")
    answer = work.ledger.lease(session, 512, 512)
    by_bob = batches_of(answer).count("b")
    assert (len(answer.leases), by_bob) == (8, 4)


def test_a_caller_with_much_in_flight_waits(work):
    work.started("a", 640, caller="ann")
    session = work.ledger.open_session("m")
    work.ledger.lease(session, 256, 1000)
    work.started("b", 640, caller="bob")
    assert batches_of(work.ledger.lease(session, 256, 1000)) == ["b"] * 4


def test_an_urgent_batch_goes_before_fairness_and_priority(work):
    work.started("later", 640, caller="ann", deadline=87_400.0, priority=9)
    work.started("soon", 640, caller="bob", deadline=4_600.0)
    session = work.ledger.open_session("m")
    work.ledger.lease(session, 64, 1000)
    assert batches_of(work.ledger.lease(session, 256, 1000)) == ["soon"] * 4


def test_priority_decides_among_like_deadlines(work):
    work.started("plain", 128, deadline=87_400.0)
    work.started("higher", 128, deadline=87_500.0, priority=1)
    assert batches_of(work.ledger.lease(work.ledger.open_session("m"), 128, 1000)) == ["higher"] * 2


def test_a_new_deadline_or_priority_counts_at_once(work):
    work.started("a", 128, deadline=87_400.0)
    work.started("b", 128, deadline=87_400.0)
    session = work.ledger.open_session("m")
    work.ledger.reschedule("b", deadline=2000.0, window="15m")
    assert batches_of(work.ledger.lease(session, 64, 1000)) == ["b"]
    work.ledger.reschedule("a", deadline=2000.0, priority=1)
    assert batches_of(work.ledger.lease(session, 64, 1000)) == ["a"]


@pytest.mark.parametrize("seed", range(5))
def test_sooner_is_never_less_urgent(seed):
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(200):
        first, second = sorted(dice.uniform(-100, 1_000_000) for _ in range(2))
        assert urgency(first, 0.0) <= urgency(second, 0.0) <= urgency(None, 0.0)
        assert first * 1.5 > second or second < 90 or urgency(first, 0.0) < urgency(second, 0.0)


def test_a_lease_carries_its_rank_for_the_engine(work):
    work.started("day", 64, deadline=87_400.0)
    work.started("none", 64)
    work.started("soon", 64, deadline=1900.0)
    session = work.ledger.open_session("m")
    ranks = {lease.batch_id: lease.rank for lease in work.ledger.lease(session, 640, 640).leases}
    assert ranks["soon"] < ranks["day"] < ranks["none"]


def test_an_urgent_row_overtakes_what_was_leased_before_but_not_for_ever():
    due = 15 * 60.0
    waiting = engine_rank(86_400.0, 0, 0.0)
    assert engine_rank(80 * 60.0 + due, 0, 80 * 60.0) < waiting
    assert engine_rank(100 * 60.0 + due, 0, 100 * 60.0) > waiting
    assert engine_rank(3600.0, 0, 0.0) < engine_rank(7200.0, 0, 0.0) < engine_rank(3600.0, 0, 300.0)


def test_a_priority_is_worth_a_minute():
    assert engine_rank(9000.0, 2, 119.0) < engine_rank(9000.0, 0, 0.0) < engine_rank(9000.0, 2, 130.0)


@pytest.mark.parametrize("seed", range(5))
def test_within_a_batch_the_first_leased_comes_first(seed):
    print("seed", seed)
    dice = random.Random(seed)
    for _ in range(200):
        deadline = dice.choice([None, dice.uniform(-100, 1_000_000)])
        first, second = sorted(dice.uniform(0, 1_000_000) for _ in range(2))
        assert engine_rank(deadline, 3, first) <= engine_rank(deadline, 3, second)
        sooner, later = sorted(dice.uniform(-100, 1_000_000) for _ in range(2))
        assert engine_rank(sooner, 0, first) <= engine_rank(later, 0, first) <= engine_rank(None, 0, first) + 1
