from __future__ import annotations

import pytest
from service_house import ANN, MODEL, House, jobs


def running(house, caller=ANN):
    batch_id = house.submit(2, caller)
    house.tick()
    return batch_id


def test_a_stream_starts_with_work_and_stays_for_more(house):
    house.tick()
    assert not house.streams.starts
    running(house)
    assert house.streams.starts == [MODEL]
    assert house.supervisor.stays(MODEL)
    house.clock.now += 599
    assert house.supervisor.stays(MODEL)
    house.supervisor.busy(MODEL)
    house.clock.now += 599
    assert house.supervisor.stays(MODEL)
    house.clock.now += 601
    assert not house.supervisor.stays(MODEL)


def test_a_stream_that_breaks_starts_again_ever_later(house):
    batch_id = running(house)
    begun = house.clock.now
    for _ in range(6):
        house.streams.end(MODEL, "boom")
        while MODEL not in house.streams.up:
            house.tick(1, seconds=0.5)
    waited = house.clock.now - begun
    assert 2 + 4 + 8 + 16 + 32 + 64 <= waited < 140
    assert house.streams.starts[1:] == [MODEL] * 6
    assert house.supervisor.stream_failures == {MODEL: "boom"}
    house.supervisor.answered(MODEL)
    assert not house.supervisor.stream_failures
    assert house.status(batch_id) == "in_progress"


def test_an_engine_that_never_starts_fails_the_batches_without_an_answer(folder):
    house = House(folder, engine_tries=3)
    empty, begun = running(house), running(house)
    house.answer(begun, {0})
    for number in range(3):
        assert house.status(empty) == "in_progress"
        house.streams.end(MODEL, f"no such weights, try {number}")
        while number < 2 and MODEL not in house.streams.up:
            house.tick(1, seconds=0.5)
    house.tick()
    view = house.desk.get(ANN, empty)
    assert view.status == "failed"
    assert [finding.code for finding in view.findings] == ["engine_failed"]
    assert "3 starts: no such weights, try 2" in view.findings[0].message
    assert house.status(begun) == "in_progress"
    house.ledger.close()


def test_a_stream_that_ended_idle_comes_back_with_work(house):
    batch_id = running(house)
    house.answer(batch_id)
    house.streams.end(MODEL)
    house.tick()
    assert len(house.streams.starts) == 1
    running(house)
    assert house.streams.starts == [MODEL] * 2


@pytest.fixture
def two(folder):
    """Two models with replicas of a GPU each, 1 to 4 of them."""
    house = House(folder, models=("a", "b"), gpus=1, replicas=4)
    house.streams.most = 1
    yield house
    house.ledger.close()


def submitted(house, model, rows=1, **how):
    batch_id = house.submit(input_file_id=house.upload(jobs(rows, model=model)), **how)
    house.tick()
    return batch_id


def measure(house, model, tokens_per_s, seconds=60):
    """As if one replica had been busy for so long."""
    meter = house.at_hand.meter(model)
    for second in range(seconds):
        meter.add(1, tokens_per_s, house.clock.now - seconds + second, completion=tokens_per_s, full=True)


def test_a_model_without_room_takes_that_of_an_idle_one(two):
    two.answer(submitted(two, "a"))
    two.tick()
    assert two.supervisor.stays("a")
    submitted(two, "b")
    assert not two.supervisor.no_room
    assert not two.supervisor.stays("a")
    two.streams.end("a")
    two.tick()
    assert two.streams.up == {"b": 1}


def test_a_busy_stream_keeps_its_engines_from_work_that_can_wait(two):
    measure(two, "a", 100)
    measure(two, "b", 100)
    submitted(two, "a", rows=20)
    submitted(two, "b")
    assert two.supervisor.stays("a")
    assert not two.supervisor.yields("a")
    assert two.supervisor.no_room == {"b"}


def test_a_busy_stream_leases_no_more_when_another_deadline_presses(two):
    measure(two, "a", 100)
    measure(two, "b", 100)
    submitted(two, "a", rows=20)
    submitted(two, "b", rows=2000, window_s=3600.0)
    assert two.supervisor.yields("a")
    assert two.streams.up["b"] == 1
    two.streams.end("a")
    two.tick()
    assert two.supervisor.no_room == {"a"}
    two.clock.now += 3700
    two.tick()
    two.streams.end("b")
    two.tick(4, seconds=2.0)
    assert two.streams.up == {"a": 1}


def test_a_deadline_at_risk_brings_replicas_and_they_go_when_it_is_not(two):
    two.streams.most = 8
    measure(two, "a", 10)
    batch_id = submitted(two, "a", rows=1000, window_s=5000.0)
    assert two.streams.up["a"] == 2
    assert two.supervisor.outstanding("a", 1000) == 500
    two.answer(batch_id, set(range(900)))
    two.tick(2, seconds=6.0)
    assert two.streams.up["a"] == 1


def test_engines_stay_as_long_as_configured(two):
    two.streams.most = 8
    measure(two, "a", 10)
    two.answer(submitted(two, "a", rows=1000, window_s=5000.0))
    two.tick(2, seconds=6.0)
    assert two.streams.up["a"] == 2
    assert two.supervisor.stays("a")
    two.tick(2, seconds=601.0)
    assert not two.supervisor.stays("a")
