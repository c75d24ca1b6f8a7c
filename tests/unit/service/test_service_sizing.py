from __future__ import annotations

import random
from dataclasses import replace

import pytest

from lsi_ray.service.admission import Claim
from lsi_ray.service.sizing import Demand, Gpus, size

NOW = 1_000_000.0
RATE = 1000.0
ELASTIC = Gpus(paid=0, most=8)
OURS = Gpus(paid=8, most=8)


def due(hours, replica_hours, priority=0):
    """Work of so many replica-hours."""
    return Claim.of(f"{hours}-{replica_hours}", replica_hours * 3600 * RATE, NOW + 3600 * hours, priority, NOW)


def demand(model, *claims, now=0, gpus=1, least=1, most=8, rate=RATE, start_s=100.0, stays=0):
    return Demand(model, gpus, least, most, rate, start_s, now, claims, stays)


def wanted(*demands, gpus=ELASTIC):
    return [size(demands, gpus, NOW)[one.model] for one in demands]


def test_a_deadline_far_away_needs_the_least():
    assert wanted(demand("a", due(24, 1))) == [1]


def test_a_deadline_needs_what_does_it_in_time_with_some_to_spare():
    assert wanted(demand("a", due(1, 3))) == [4]
    assert wanted(demand("a", due(1, 3), due(2, 6))) == [6]


def test_replicas_that_run_already_count_from_now_and_new_ones_after_their_start():
    hour_of_start = 1800.0
    assert wanted(demand("a", due(1, 2), start_s=hour_of_start)) == [5]
    assert wanted(demand("a", due(1, 2), now=3, start_s=hour_of_start)) == [3]


def test_replicas_go_back_when_the_deadline_is_safe_without_them_and_not_for_a_waver():
    """Three hours of work in one: 3.75 with what is added for safety."""
    assert wanted(demand("a", due(1, 3), now=5)) == [5]
    assert wanted(demand("a", due(1, 3), now=8)) == [5]
    assert wanted(demand("a", due(24, 3), now=8)) == [1]


def test_no_work_is_no_replica_but_what_stays_loaded():
    assert wanted(demand("a", now=4), demand("b", now=2, stays=1)) == [0, 1]


def test_the_more_urgent_takes_gpus_from_the_later_and_the_later_gets_what_is_left():
    later = demand("later", due(10, 60), now=8)
    assert wanted(later, demand("urgent", due(1, 3))) == [4, 4]
    assert wanted(later, demand("urgent", due(1, 7))) == [0, 8]


def test_priority_decides_at_equal_deadlines():
    high, low = demand("high", due(1, 5, priority=1)), demand("low", due(1, 5))
    assert wanted(low, high) == [1, 7]


def test_what_does_not_press_takes_no_gpus_from_who_runs():
    """A small batch of the evening waits for one that runs; when its time gets short it does not."""
    one = Gpus(0, 1)
    running = demand("running", due(10, 1), now=1)
    assert wanted(running, demand("evening", due(9, 1)), gpus=one) == [1, 0]
    assert wanted(running, demand("evening", due(2, 1)), gpus=one) == [0, 1]


def test_an_idle_model_yields_to_one_with_work():
    idle = demand("idle", now=1, stays=1)
    assert wanted(idle, demand("new", due(20, 1)), gpus=Gpus(0, 1)) == [0, 1]
    assert wanted(idle, demand("new", due(20, 1)), gpus=Gpus(0, 2)) == [1, 1]


def test_late_work_gets_what_others_leave():
    late, fine = demand("late", due(0.5, 100)), demand("fine", due(1, 3))
    assert wanted(late, fine) == [4, 4]


def test_a_late_batch_does_not_make_the_next_ones_late():
    """It runs first, but ends with its window."""
    assert wanted(demand("a", due(0.1, 100), due(10, 70)), demand("b", due(20, 4))) == [8, 0]
    assert wanted(demand("a", due(0.1, 100)), demand("b", due(20, 4))) == [7, 1]


def test_an_unmeasured_model_runs_to_be_measured():
    assert wanted(demand("a", due(1, 100), rate=None)) == [1]
    assert wanted(demand("a", due(1, 7), now=8), demand("b", due(0.5, 1), rate=None)) == [7, 1]


def test_a_replica_of_many_gpus_comes_whole():
    big = demand("big", due(1, 1), gpus=4, least=1, most=4)
    assert wanted(big, gpus=Gpus(0, 3)) == [0]
    assert wanted(big, gpus=Gpus(0, 7)) == [1]
    assert wanted(big, gpus=Gpus(0, 8)) == [2]


def test_paid_gpus_are_used_as_far_as_it_is_worth_a_start():
    assert wanted(demand("a", due(24, 100)), gpus=OURS) == [8]
    assert wanted(demand("a", due(24, 0.5)), gpus=OURS) == [3]
    assert wanted(demand("a", due(240, 100)), demand("b", due(240, 50)), gpus=OURS) == [5, 3]


def test_paid_gpus_stay_with_who_has_them_unless_another_needs_them_much_more():
    nearly = demand("a", due(240, 100), now=4), demand("b", due(240, 80), now=4)
    assert wanted(*nearly, gpus=OURS) == [4, 4]
    much = demand("a", due(2400, 300), now=4), demand("b", due(2400, 60), now=4)
    assert wanted(*much, gpus=OURS) == [6, 2]


def test_cpu_models_take_no_gpus():
    cpu = demand("cpu", due(1, 3), gpus=0)
    assert wanted(cpu, demand("gpu", due(1, 6)), gpus=Gpus(0, 8)) == [4, 8]


def some(chance):
    for number in range(chance.randint(1, 5)):
        least = chance.choice([1, 1, 2])
        claims = [
            due(chance.uniform(-1, 30), chance.expovariate(0.2), chance.randint(0, 2))
            for _ in range(chance.randint(0, 4))
        ]
        if claims and chance.random() < 0.2:
            claims[0] = replace(claims[0], deadline=None)
        yield Demand(
            str(number),
            chance.choice([0, 1, 1, 2, 4]),
            least,
            chance.randint(least, 16),
            chance.choice([None, RATE, 10 * RATE]),
            chance.uniform(0, 600),
            chance.randint(0, 6),
            tuple(claims),
            chance.choice([0, 0, 1]),
        )


@pytest.mark.parametrize("seed", range(100))
def test_always(seed):
    print("seed", seed)
    chance = random.Random(seed)
    demands, most = list(some(chance)), chance.randint(0, 40)
    gpus = Gpus(chance.choice([0, most, most // 2]), most)
    found = size(demands, gpus, NOW)
    assert found == size(demands[::-1], gpus, NOW)
    assert sum(one.gpus * found[one.model] for one in demands) <= most
    for one in demands:
        assert found[one.model] == 0 or one.least <= found[one.model] <= one.most
        assert one.claims or one.stays or not found[one.model]
        if one.claims and not one.gpus:
            assert found[one.model]
    calm = [replace(one, now=found[one.model]) for one in demands]
    again = size(calm, gpus, NOW)
    assert size([replace(one, now=again[one.model]) for one in demands], gpus, NOW) == again
