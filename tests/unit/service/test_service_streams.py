from __future__ import annotations

import pytest
from service_house import ANN, MODEL, House


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
    house = House(folder, models=("a", "b"))
    yield house
    house.ledger.close()


def test_a_model_without_room_takes_that_of_an_idle_one(two):
    from service_house import jobs

    first = two.submit(input_file_id=two.upload(jobs(1, model="a")))
    two.tick()
    two.answer(first)
    two.tick()
    assert two.supervisor.stays("a")
    two.streams.room = False
    two.submit(input_file_id=two.upload(jobs(1, model="b")))
    two.tick()
    assert two.supervisor.no_room == {"b"}
    assert not two.supervisor.stays("a")
    two.streams.end("a")
    two.streams.room = True
    two.tick()
    assert two.streams.up == {"b"}
    assert not two.supervisor.no_room


def test_a_busy_stream_keeps_its_engines(two):
    from service_house import jobs

    two.submit(input_file_id=two.upload(jobs(1, model="a")))
    two.tick()
    two.supervisor.busy("a")
    two.streams.room = False
    two.submit(input_file_id=two.upload(jobs(1, model="b")))
    two.tick()
    assert two.supervisor.stays("a")
