from __future__ import annotations

import json
import random
import tarfile
import time

import pytest
from pydantic import SecretStr
from service_house import ANN, BOB, House, jobs

from lsi_ray.errors import LedgerError, StorageError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Patch, Repeat, Retry, ServiceError, Webhook
from lsi_ray.service.desk import sweep
from lsi_ray.service.file_store import FileStore
from lsi_ray.storage.secret_url import SecretUrl


def lines_of(house, name="out.tar.gz"):
    """(output lines, error codes) of a delivered archive."""
    with tarfile.open(house.folder / name) as tar:
        names = tar.getnames()
        output = tar.extractfile("output.jsonl").read().splitlines()
        errors = tar.extractfile("error.jsonl").read().splitlines() if "error.jsonl" in names else []
    codes = [(json.loads(line)["error"] or {}).get("code") for line in errors]
    return output, codes


def kept(house):
    """Every byte in the work dir."""
    house.ledger.scrub()
    return b"".join(path.read_bytes() for path in house.work.path.rglob("*") if path.is_file())


def test_a_batch_from_upload_to_files(house):
    batch_id = house.submit(3)
    assert house.status(batch_id) == "validating"
    house.tick()
    assert house.status(batch_id) == "in_progress"
    assert house.streams.starts == ["lsi/simulated"]
    house.answer(batch_id)
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert (view.status, view.counts.completed, view.error_file_id) == (BatchStatus.COMPLETED, 3, None)
    path = FileStore(house.work.path).path(house.files.get(ANN, view.output_file_id).id)
    assert [json.loads(line)["custom_id"] for line in path.read_bytes().splitlines()] == ["r0", "r1", "r2"]
    check_invariants(house.ledger)


def test_after_delivery_nothing_of_the_users_stays_but_the_urls(house):
    secret = SecretUrl(f"file://{house.folder}/out.tar.gz?X-Amz-Signature=topsecret")
    webhook = Webhook(SecretUrl("http://127.0.0.1:9/hook?key=hooksecret"), SecretStr("whsec_c2lnbmluZ3NlY3JldA=="))
    file_id = house.upload(3)
    batch_id = house.submit(input_file_id=file_id, output_url=secret, webhook=webhook)
    house.tick()
    house.answer(batch_id)
    before = kept(house)
    for word in (b"secret question", b"secret answer", b"topsecret", b"hooksecret"):
        assert word in before
    assert b"topsecret" not in house.work.ledger.read_bytes()
    house.tick()
    house.outbox.send_due()
    house.files.delete(ANN, file_id)
    assert house.status(batch_id) == "completed"
    [ended] = (house.work.path / "ended").iterdir()
    assert ended.stat().st_mode & 0o777 == 0o600
    assert ended.parent.stat().st_mode & 0o777 == 0o700
    assert json.loads(ended.read_bytes()) == {"input_url": None, "output_url": secret.reveal()}
    house.clock.now += 86_401
    house.tick()
    after = kept(house)
    for word in (b"secret question", b"secret answer", b"topsecret", b"hooksecret", b"whsec_"):
        assert word not in after
    assert len(lines_of(house)[0]) == 3


def test_expiry_delivers_what_is_finished(house):
    batch_id = house.submit(5, output_url=house.output(), window_s=3600.0)
    house.tick()
    house.answer(batch_id, rows={0, 3})
    house.clock.now += 3601
    house.tick()
    assert house.status(batch_id) == "expired"
    output, codes = lines_of(house)
    assert (len(output), codes) == (2, ["batch_expired"] * 3)


@pytest.mark.parametrize("answered", [set(), {1}, {0, 1, 2, 3, 4}])
def test_cancel_delivers_what_is_finished(house, answered):
    batch_id = house.submit(5, output_url=house.output())
    house.tick()
    house.answer(batch_id, rows=answered)
    house.desk.cancel(ANN, batch_id)
    house.tick()
    assert house.status(batch_id) == "cancelled"
    output, codes = lines_of(house)
    assert (len(output), codes) == (len(answered), ["batch_cancelled"] * (5 - len(answered)))


def test_cancel_before_validation_ends_at_once(house):
    house.workers.held.add("intake")
    batch_id = house.submit(5, output_url=house.output())
    house.tick()
    house.desk.cancel(ANN, batch_id)
    house.tick()
    assert house.status(batch_id) == "cancelled"
    assert not house.workers.running()
    assert not (house.folder / "out.tar.gz").exists()


def test_cancel_ends_within_a_minute_when_the_output_url_is_dead(house):
    batch_id = house.submit(5, output_url=house.output())
    house.tick()
    house.workers.broken["delivery"] = StorageError("output_forbidden", "403")
    house.desk.cancel(ANN, batch_id)
    begun = house.clock.now
    while house.status(batch_id) != "cancelled":
        house.tick(1, seconds=0.5)
        assert house.clock.now - begun < 60
    assert "could not be delivered" in house.desk.get(ANN, batch_id).warnings[0]


def test_a_bad_input_fails_with_all_findings(house):
    batch_id = house.submit(input_file_id=house.upload(jobs(2, model="other") + b"\n" + jobs(1)))
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert view.status == BatchStatus.FAILED
    assert {finding.code for finding in view.findings} == {"model_not_found", "model_mismatch", "duplicate_custom_id"}
    assert house.ledger.batch(batch_id).erased


def test_a_transient_fault_of_the_input_is_waited_out(house):
    house.workers.broken["intake"] = StorageError("input_unavailable", "503", transient=True)
    batch_id = house.submit(2)
    house.tick(5, seconds=1.0)
    assert house.status(batch_id) == "validating"
    assert house.desk.get(ANN, batch_id).waiting.reason == "input_url"
    tries = len(house.workers.started)
    assert tries < 5
    house.workers.broken.clear()
    house.tick(10, seconds=2.0)
    assert house.status(batch_id) == "in_progress"
    assert house.desk.get(ANN, batch_id).waiting is None


def test_an_intake_that_dies_again_and_again_fails_its_batch_alone(house):
    house.workers.broken["intake"] = "lost"
    batch_id = house.submit(2)
    house.tick(100, seconds=2.0)
    assert house.status(batch_id) == "failed"
    assert len(house.workers.started) == 5


def test_a_dead_output_url_waits_for_a_new_one(house):
    batch_id = house.submit(2, output_url=house.output("dead"))
    house.tick()
    house.workers.broken["delivery"] = StorageError("output_url_expired", "the URL has expired")
    house.answer(batch_id)
    house.tick(200, seconds=5.0)
    view = house.desk.get(ANN, batch_id)
    assert (view.status, view.waiting.reason) == (BatchStatus.FINALIZING, "output_url")
    house.workers.broken.clear()
    house.desk.patch(ANN, batch_id, Patch(output_url=house.output("new.tar.gz")))
    house.tick()
    assert house.status(batch_id) == "completed"
    assert len(lines_of(house, "new.tar.gz")[0]) == 2


def test_results_that_nobody_takes_are_erased_at_last(house):
    batch_id = house.submit(2, output_url=house.output())
    house.tick()
    house.workers.broken["delivery"] = StorageError("output_forbidden", "403")
    house.answer(batch_id)
    house.tick()
    house.clock.now += 7 * 86_400 + 1
    house.tick()
    assert house.status(batch_id) == "failed"
    assert house.desk.get(ANN, batch_id).findings[0].code == "output_undeliverable"


def test_what_was_packed_is_what_is_sent(house):
    """Killed between sending and saying so, and cancelled meanwhile: the second upload has the same bytes."""
    batch_id = house.submit(2, output_url=house.output())
    house.tick()
    house.answer(batch_id)
    house.workers._run("delivery", batch_id)
    sent = (house.folder / "out.tar.gz").read_bytes()
    house.reopen()
    house.clock.now += 50
    house.desk.cancel(ANN, batch_id)
    house.tick()
    assert house.status(batch_id) == "cancelled"
    assert (house.folder / "out.tar.gz").read_bytes() == sent


def test_damaged_results_run_again(house):
    batch_id = house.submit(3, output_url=house.output())
    house.tick()
    house.answer(batch_id)
    for path in house.work.batch(batch_id).segments.iterdir():
        path.write_bytes(path.read_bytes()[:-1] + b"x")
    house.tick()
    assert house.status(batch_id) == "in_progress"
    house.answer(batch_id)
    house.tick()
    assert len(lines_of(house)[0]) == 3


def test_retry_runs_the_failed_rows_only(house):
    good, bad = jobs(4).split(b"\n"), b"not json"
    file_id = house.upload(b"\n".join([good[0], bad, good[1], bad]))
    first = house.submit(input_file_id=file_id)
    house.tick()
    house.answer(first)
    house.tick()
    for attempt in (1, 2):
        again, created = house.desk.retry(ANN, first, Retry(Repeat(str(attempt)), failed_only=True))
        assert created
        house.tick()
        view = house.desk.get(ANN, again.id)
        assert (view.retry_of, view.retry_count, view.counts.failed, view.counts.total) == (first, attempt, 2, 2)
        assert view.status == BatchStatus.COMPLETED
        errors = FileStore(house.work.path).path(view.error_file_id).read_text()
        assert "Line 2:" in errors
        assert "Line 4:" in errors
        first = again.id
    with pytest.raises(ServiceError) as caught:
        house.desk.retry(ANN, first, Retry(Repeat("3")))
    assert caught.value.code == "retry_limit"


def test_nothing_is_anybody_elses(house):
    file_id = house.upload(1)
    batch_id = house.submit(input_file_id=file_id)
    for act in (
        lambda: house.desk.get(BOB, batch_id),
        lambda: house.desk.cancel(BOB, batch_id),
        lambda: house.desk.patch(BOB, batch_id, Patch(priority=1)),
        lambda: house.desk.archive(BOB, batch_id),
        lambda: house.desk.retry(BOB, batch_id, Retry(Repeat("1"))),
        lambda: house.files.get(BOB, file_id),
        lambda: house.files.delete(BOB, file_id),
        lambda: house.submit(caller=BOB, input_file_id=file_id),
        lambda: house.desk.list(BOB, limit=5, after_id=batch_id),
        lambda: house.desk.get(ANN, "../etc"),
    ):
        with pytest.raises(ServiceError) as caught:
            act()
        assert caught.value.code == "not_found"
    assert house.desk.list(BOB, limit=10).items == ()


def test_a_repeated_submission_is_the_same_batch_and_leaves_nothing(house):
    file_id, repeat = house.upload(1), Repeat("same")
    first = house.submit(input_file_id=file_id, repeat=repeat)
    assert house.submit(input_file_id=file_id, repeat=repeat) == first
    assert [path.name for path in house.work.batches.iterdir()] == [first]


def test_a_submission_that_was_never_acknowledged_is_swept(house):
    alive = house.submit(1)
    house.work.batch("batch_unknown").create()
    temporary, file = FileStore(house.work.path).begin()
    file.close()
    sweep(house.work, house.ledger, time.time())
    assert temporary.exists()
    sweep(house.work, house.ledger, time.time() + 90_000)
    assert [path.name for path in house.work.batches.iterdir()] == [alive]
    assert not temporary.exists()
    assert FileStore(house.work.path).path(house.ledger.batch(alive).options["input_file_id"]).exists()


def test_a_caller_has_so_many_batches(folder):
    house = House(folder, admission={"max_batches_per_caller": 2})
    house.submit(1)
    house.submit(1)
    with pytest.raises(ServiceError) as caught:
        house.submit(1)
    assert caught.value.code == "too_many_batches"
    house.submit(1, caller=BOB)
    house.ledger.close()


def test_the_rows_name_the_model(folder):
    house = House(folder, models=("a", "b"))
    batch_id = house.submit(input_file_id=house.upload(jobs(2, model="b")))
    house.tick()
    assert house.ledger.batch(batch_id).model == "b"
    assert house.streams.starts == ["b"]
    nameless = house.submit(input_file_id=house.upload(b'{"custom_id": "x"}'))
    house.tick()
    assert house.desk.get(ANN, nameless).findings[0].code == "model_not_found"
    house.ledger.close()


def test_two_batches_of_a_model_share_its_stream(house):
    first = house.submit(2)
    house.tick()
    second = house.submit(2)
    house.tick()
    assert house.streams.starts == ["lsi/simulated"]
    for batch_id in (first, second):
        house.answer(batch_id)
    house.tick()
    assert {house.status(first), house.status(second)} == {"completed"}


@pytest.mark.parametrize("seed", range(10))
def test_at_any_kill_everything_goes_on(house, seed):
    print("seed", seed)
    dice = random.Random(seed)
    batch_id = house.submit(4, output_url=house.output())
    for step in range(40):
        house.tick(1, seconds=1.0)
        if dice.random() < 0.5:
            house.reopen()
        if step in (10, 15) and house.status(batch_id) == "in_progress":
            house.answer(batch_id, rows={0, 2} if step == 10 else None)
    assert house.status(batch_id) == "completed"
    assert len(lines_of(house)[0]) == 4
    check_invariants(house.ledger)


def test_the_private_file_is_its_owners_only_and_shows_nothing(house):
    from lsi_ray.service.private import Private

    batch_id = house.submit(1, output_url=SecretUrl("http://127.0.0.1:9/out?sig=topsecret"))
    folder = house.work.batch(batch_id)
    assert (folder.path / "private.json").stat().st_mode & 0o777 == 0o600
    assert "topsecret" not in repr(Private.load(folder))
    assert "topsecret" not in repr(house.desk.get(ANN, batch_id))
    with pytest.raises(LedgerError):
        Private.load(house.work.batch("batch_gone"))


def test_twelve_hours_without_capacity(house):
    """One batch waits them out, with its stream asked for all the while; the other's window ends, and it is told so."""
    waits = house.submit(rows=3, output_url=house.output())
    ends = house.submit(rows=2, output_url=house.output("ended.tar.gz"), window_s=6 * 3600.0)
    house.tick()
    for _ in range(12 * 60):
        house.tick(times=1, seconds=60.0)
        assert house.streams.up, "nobody asks for an engine any more"
    assert (house.status(waits), house.status(ends)) == ("in_progress", "expired")
    assert lines_of(house, "ended.tar.gz") == ([], ["batch_expired"] * 2)
    assert len(house.streams.starts) == 1
    house.answer(waits)
    house.tick()
    assert house.status(waits) == "completed"
