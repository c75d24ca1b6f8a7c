"""Several callers, or one caller and the service, at the same moment."""

from __future__ import annotations

import errno
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from service_house import ANN, House

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.service import desk as desk_module
from lsi_ray.service.backend import Patch, Repeat, Retry, ServiceError, Submission
from lsi_ray.service.private import Private
from lsi_ray.storage.secret_url import SecretUrl


def at_once(number, act):
    """The results of `act(i)`, begun together; what it raises is a result, too."""
    gate = threading.Barrier(number)

    def one(index):
        gate.wait()
        try:
            return act(index)
        except (LedgerError, ServiceError) as error:
            return error.code

    with ThreadPoolExecutor(number) as pool:
        return list(pool.map(one, range(number)))


def submission(fingerprint, key=None, **how):
    return Submission("lsi", "/v1/chat/completions", "24h", 86_400.0, Repeat(fingerprint, key), **how)


@pytest.mark.parametrize("key", [None, "order-1"])
def test_one_request_fifty_times_at_once_is_one_batch(house, key):
    file_id = house.upload(1)
    made = at_once(50, lambda _: house.desk.submit(ANN, submission("same", key, input_file_id=file_id)))
    assert len({view.id for view, _ in made}) == 1
    assert sum(created for _, created in made) == 1
    assert [path.name for path in house.work.batches.iterdir()] == [made[0][0].id]
    check_invariants(house.ledger)


def test_fifty_requests_at_once_are_held_to_the_limit(folder):
    house = House(folder, admission={"max_batches_per_caller": 7})
    file_id = house.upload(1)
    made = at_once(50, lambda i: house.desk.submit(ANN, submission(f"body {i}", input_file_id=file_id)))
    assert sum(one == "too_many_batches" for one in made) == 43
    assert len(list(house.work.batches.iterdir())) == 7
    house.ledger.close()


def test_retries_at_once_are_held_to_the_limit(house):
    batch_id = house.submit(1)
    house.tick()
    house.answer(batch_id)
    house.tick()
    made = at_once(10, lambda i: house.desk.retry(ANN, batch_id, Retry(Repeat(f"{i}"))))
    assert sum(one == "retry_limit" for one in made) == 8
    assert sorted(one[0].retry_count for one in made if one != "retry_limit") == [1, 2]


def test_urls_patched_at_once_are_all_kept(house):
    batch_id = house.submit(1, input_url=SecretUrl("https://x/in"), output_url=house.output())
    changes = [Patch(input_url=SecretUrl("https://x/new-in")), Patch(output_url=SecretUrl("https://x/new-out"))]
    for _ in range(10):
        at_once(2, lambda i: house.desk.patch(ANN, batch_id, changes[i]))
        private = Private.load(house.work.batch(batch_id))
        assert (private.input_url.name, private.output_url.name) == ("new-in", "new-out")
        Private(SecretUrl("https://x/in"), SecretUrl("https://x/out")).save(house.work.batch(batch_id))


def test_a_cancel_that_comes_as_validation_ends(house, monkeypatch):
    batch_id = house.submit(3, output_url=house.output())
    start = house.ledger.start_batch

    def late(*args, **how):
        house.desk.cancel(ANN, batch_id)
        return start(*args, **how)

    monkeypatch.setattr(house.ledger, "start_batch", late)
    house.tick()
    view = house.desk.get(ANN, batch_id)
    assert (view.status, view.findings) == ("cancelled", ())
    assert not (house.folder / "out.tar.gz").exists()
    assert list(house.work.batches.iterdir()) == []
    check_invariants(house.ledger)


def test_a_cancel_just_after_validation_has_ended(house, monkeypatch):
    batch_id = house.submit(3, output_url=house.output())
    start = house.ledger.start_batch

    def early(*args, **how):
        started = start(*args, **how)
        house.desk.cancel(ANN, batch_id)
        return started

    monkeypatch.setattr(house.ledger, "start_batch", early)
    house.tick()
    assert house.status(batch_id) == "cancelled"
    assert (house.folder / "out.tar.gz").exists()  # three lines batch_cancelled
    check_invariants(house.ledger)


def test_a_file_in_use_is_not_deleted_and_one_that_was_is_not_found(house, monkeypatch):
    file_id = house.upload(2)
    batch_id = house.submit(input_file_id=file_id)
    house.tick()
    with pytest.raises(LedgerError) as caught:
        house.files.delete(ANN, file_id)
    assert caught.value.code == "file_in_use"
    house.answer(batch_id)
    house.tick()
    house.files.delete(ANN, file_id)
    other, create = house.upload(2), desk_module.BatchDir.create
    monkeypatch.setattr(
        desk_module.BatchDir, "create", lambda folder: (house.files.delete(ANN, other), create(folder))[1]
    )
    with pytest.raises(ServiceError) as caught:
        house.submit(input_file_id=other)
    assert caught.value.code == "not_found"
    assert list(house.work.batches.iterdir()) == []


def test_a_file_deleted_as_its_batch_is_made_is_there_for_the_batch(house, monkeypatch):
    file_id, submit = house.upload(2), house.ledger.submit
    monkeypatch.setattr(house.ledger, "submit", lambda one: (house.files.delete(ANN, file_id), submit(one))[1])
    batch_id = house.submit(input_file_id=file_id)
    house.tick()
    house.answer(batch_id)
    house.tick()
    assert house.status(batch_id) == "completed"


def test_a_patch_that_comes_as_the_batch_ends(house, monkeypatch):
    batch_id = house.submit(1, output_url=house.output())
    house.tick()
    house.answer(batch_id)
    reschedule = house.ledger.reschedule

    def late(*args, **how):
        reschedule(*args, **how)
        house.tick()

    monkeypatch.setattr(house.ledger, "reschedule", late)
    with pytest.raises(ServiceError) as caught:
        house.desk.patch(ANN, batch_id, Patch(output_url=house.output("other")))
    assert caught.value.code == "not_patchable"
    with pytest.raises(ServiceError) as caught:
        house.desk.patch(ANN, batch_id, Patch(priority=3))
    assert caught.value.code == "not_patchable"
    assert list(house.work.batches.iterdir()) == []


def test_a_disk_that_is_full_makes_no_batch_and_leaves_nothing(house, monkeypatch):
    file_id = house.upload(1)

    def full(*_):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Private, "save", full)
    with pytest.raises(OSError, match="No space"):
        house.submit(input_file_id=file_id)
    monkeypatch.undo()
    assert list(house.work.batches.iterdir()) == []
    assert house.desk.list(ANN, limit=5).items == ()
    house.submit(input_file_id=file_id)
