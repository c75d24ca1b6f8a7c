"""What callers see of a batch on its way, and input URLs that run out before its turn comes."""

from __future__ import annotations

import json
import tarfile

import pytest
from service_house import ANN, BOB, House, jobs

from lsi_ray.errors import StorageError
from lsi_ray.ledger.records import Answers, ResultLine
from lsi_ray.ledger.segments import write_segment
from lsi_ray.service.api.lsi_wire import batch_of, status_of
from lsi_ray.service.backend import Patch, Waiting
from lsi_ray.service.models_state import Replicas, model_state
from lsi_ray.service.speed import Meter
from lsi_ray.storage.secret_url import SecretUrl


def shown(house, batch_id):
    return status_of(house.desk.get(ANN, batch_id))


def test_lsis_finer_states_are_told_as_they_are(folder):
    house = House(folder, intakes=2)
    house.workers.held.add("intake")
    first, batch_id = house.submit(1), house.submit(3)
    assert (shown(house, first), shown(house, batch_id)) == ("accepted", "accepted")
    house.tick(1)
    assert (shown(house, first), shown(house, batch_id)) == ("validating", "accepted")
    assert house.desk.get(ANN, batch_id).waiting.reason == "queued"
    house.desk.cancel(ANN, first)
    house.tick(2)
    assert shown(house, batch_id) == "validating"
    house.reopen()  # the process that looked into it is gone; that somebody has begun stays true
    assert shown(house, batch_id) == "validating"
    house.tick(2)
    assert shown(house, batch_id) == "not_started"
    session = house.ledger.open_session("lsi/simulated")
    [lease] = house.ledger.lease(session, 999, 999).leases
    assert shown(house, batch_id) == "started"
    house.ledger.begin(session, lease.shard_id, "r")
    house.ledger.open_session("lsi/simulated")  # its stream has died
    house.streams.reason = Waiting("model_loading", "the engine is loading")
    assert shown(house, batch_id) == "waiting"
    house.answer(batch_id, rows={0})
    assert shown(house, batch_id) == "in_progress"
    house.ledger.close()


def test_bad_rows_alone_do_not_start_a_batch(house):
    batch_id = house.submit(input_file_id=house.upload(jobs(2) + b"\nnot json"))
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert (view.counts.failed, status_of(view)) == (1, "not_started")


def test_an_error_is_shown_with_its_line_and_custom_id(house):
    file_id = house.upload(jobs(2) + b'\n\n{"custom_id": "odd"}')
    batch_id = house.submit(input_file_id=file_id)
    house.tick()
    [entry] = batch_of(house.desk.get(ANN, batch_id)).error_digest
    assert (entry.example.line, entry.example.custom_id) == (4, "odd")
    house.desk.cancel(ANN, batch_id)
    house.tick()
    assert house.desk.get(ANN, batch_id).error_digest[0].line is None  # erased


def test_an_error_of_the_engine_is_shown_with_its_line(house):
    batch_id = house.submit(1)
    house.tick()
    session = house.ledger.open_session("lsi/simulated")
    house.ledger.begin(session, house.ledger.lease(session, 9, 9).leases[0].shard_id, "r")
    error = {"code": "context_length_exceeded", "message": "Line 1: too long"}
    line = {"custom_id": "r0", "response": {"status_code": 400, "body": {"error": error}}, "error": None}
    results = [ResultLine(0, 0, json.dumps(line).encode(), failed=True)]
    house.ledger.commit(
        session, write_segment(house.work.batch(batch_id).segments, "s", results), Answers.of(batch_id, results)
    )
    [found] = house.desk.get(ANN, batch_id).error_digest
    assert (found.code, found.line, found.custom_id) == ("context_length_exceeded", 1, "r0")


def test_an_input_url_that_ends_in_the_queue_waits_for_a_new_one(house):
    house.workers.broken["intake"] = StorageError("input_url_expired", "https://x/in.tar: the URL has expired (403)")
    batch_id = house.submit(input_url=SecretUrl("https://x/in.tar"), output_url=house.output())
    house.tick(200, seconds=5.0)
    view = house.desk.get(ANN, batch_id)
    assert (status_of(view), view.waiting.reason) == ("validating", "input_url")
    shown = batch_of(view)
    assert "PATCH the batch with a fresh input_file_uri" in shown.waiting.message
    assert len(house.workers.started) < 12  # it is not asked for all the time
    house.workers.broken.clear()
    (house.folder / "jobs.jsonl").write_bytes(jobs(2))
    with tarfile.open(house.folder / "in.tar", "w") as tar:
        tar.add(house.folder / "jobs.jsonl", "jobs.jsonl")
    house.desk.patch(ANN, batch_id, Patch(input_url=SecretUrl(f"file://{house.folder}/in.tar")))
    house.tick()
    assert house.status(batch_id) == "in_progress"
    assert house.desk.get(ANN, batch_id).waiting is None


def test_the_end_of_the_window_ends_the_wait_for_an_input_url(house):
    house.workers.broken["intake"] = StorageError("input_url_expired", "expired")
    batch_id = house.submit(input_url=SecretUrl("https://x/in.tar"), output_url=house.output(), window_s=600.0)
    house.tick()
    house.clock.now += 601
    house.tick()
    assert house.status(batch_id) == "expired"


@pytest.mark.parametrize("code", ["input_forbidden", "input_not_found", "input_changed"])
def test_an_input_that_is_not_there_fails_at_once(house, code):
    house.workers.broken["intake"] = StorageError(code, "https://x/in.tar: the server answered 403 AccessDenied")
    batch_id = house.submit(input_url=SecretUrl("https://x/in.tar"), output_url=house.output())
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert (view.status, view.findings[0].code) == ("failed", code)
    assert "403" in view.findings[0].message


def test_one_caller_does_not_take_all_the_places(folder):
    """His storage may trickle for hours."""
    house = House(folder, intakes=3, deliveries=1)
    house.workers.held.add("intake")
    his = [house.submit(1, caller=BOB) for _ in range(5)]
    house.tick(2)
    assert len(house.workers.started) == 2
    mine = house.submit(1)
    house.tick(2)
    assert [batch_id for _, batch_id in house.workers.started] == [*his[:2], mine]
    house.ledger.close()


def test_a_bug_that_one_batch_brings_out_leaves_the_others_alone(house, monkeypatch):
    bad, good = house.submit(1), house.submit(1)
    start = house.workers.start

    def stumble(kind, batch_id):
        if batch_id == bad:
            raise KeyError("a bug")
        start(kind, batch_id)

    monkeypatch.setattr(house.workers, "start", stumble)
    house.tick()
    assert (house.status(bad), house.status(good)) == ("validating", "in_progress")


def test_a_full_disk_is_no_fault_of_a_batch(house):
    house.workers.broken["intake"] = StorageError("work_dir_full", "the service's disk: full", transient=True)
    batch_id = house.submit(1)
    house.tick(100, seconds=5.0)
    assert house.desk.get(ANN, batch_id).waiting.reason == "no_space"
    house.workers.broken.clear()
    house.tick(100, seconds=5.0)
    assert house.status(batch_id) == "in_progress"


@pytest.mark.parametrize(("reason", "while_rows_run"), [("model_loading", False), ("no_space", True)])
def test_rows_that_are_out_may_wait_themselves(house, reason, while_rows_run):
    """For the first engine, or for space; but a service that was just restarted has not heard of its engines yet."""
    batch_id = house.submit(2)
    house.tick(3)
    session = house.ledger.open_session("lsi/simulated")
    [lease] = house.ledger.lease(session, 999, 999).leases
    house.streams.reason = Waiting(reason, "it waits")
    assert house.desk.get(ANN, batch_id).waiting.reason == reason
    house.ledger.begin(session, lease.shard_id, "r")
    assert (house.desk.get(ANN, batch_id).waiting is not None) == while_rows_run


def test_a_batch_of_a_model_that_is_no_longer_served_says_so(folder):
    replicas = Replicas(folder)
    state = {"no_room": False, "failure": None, "streaming": False}
    assert model_state("m", Meter(), replicas, served=False, **state).waiting.reason == "model_not_served"
    assert model_state("m", Meter(), replicas, served=True, **state).waiting.reason == "model_loading"


def test_a_row_that_the_ledger_ended_is_shown_with_its_line_and_custom_id(house):
    batch_id = house.submit(input_file_id=house.upload(b"\n\n" + jobs(1)))
    house.tick()
    for _ in range(3):  # the ladder: among others, in a few, alone
        session = house.ledger.open_session("lsi/simulated")
        [lease] = house.ledger.lease(session, 999, 999).leases
        house.ledger.begin(session, lease.shard_id, "r")
        house.ledger.crash(session, [lease.shard_id], "the engine process died")
    [error] = house.desk.get(ANN, batch_id).error_digest
    assert (error.code, error.count, error.line, error.custom_id) == ("engine_crashed", 1, 3, "r0")
    assert "the engine process died" in error.message


def test_results_of_a_model_that_is_no_longer_served_wait_and_say_so(folder):
    house = House(folder)
    batch_id = house.submit(2, output_url=house.output())
    house.tick()
    house.answer(batch_id)
    models = dict(house.deployment.models)
    house.deployment.models.clear()
    house.tick(2)
    view = house.desk.get(ANN, batch_id)
    assert (view.status, view.waiting.reason) == ("finalizing", "model_not_served")
    house.deployment.models.update(models)
    house.tick(3, seconds=3600)
    assert house.status(batch_id) == "completed"
