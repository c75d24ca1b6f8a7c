"""Retries: with the URLs of before, as LSI has it, and what is kept of a batch for that."""

from __future__ import annotations

import tarfile
from time import gmtime, strftime

import pytest
from service_house import ANN, House, jobs

from lsi_ray.service.backend import Repeat, Retry, ServiceError
from lsi_ray.storage.secret_url import SecretUrl


def pack(house, rows=2, name="in.tar", data=None):
    (house.folder / "jobs.jsonl").write_bytes(data or jobs(rows))
    with tarfile.open(house.folder / name, "w") as tar:
        tar.add(house.folder / "jobs.jsonl", "jobs.jsonl")


def signed(house, name, seconds):
    """As S3 signs; on a path, where nobody looks at the signature."""
    date = strftime("%Y%m%dT%H%M%SZ", gmtime(house.clock.now))
    return SecretUrl(f"file://{house.folder}/{name}?X-Amz-Date={date}&X-Amz-Expires={seconds}&X-Amz-Signature=s")


@pytest.fixture
def ended(house):
    """A batch from URL to URL, good for two hours, that has completed."""
    pack(house)
    urls = {"input_url": signed(house, "in.tar", 7200), "output_url": signed(house, "out.tar.gz", 7200)}
    batch_id = house.submit(window_s=3600.0, **urls)
    finish(house, batch_id)
    return batch_id


def finish(house, batch_id):
    house.tick()
    house.answer(batch_id)
    house.tick()
    assert house.status(batch_id) == "completed", house.desk.get(ANN, batch_id)


def retry(house, batch_id, name="1", **how):
    return house.desk.retry(ANN, batch_id, Retry(Repeat(name), **how))


def refusal(house, batch_id, **how):
    with pytest.raises(ServiceError) as caught:
        retry(house, batch_id, "refused", **how)
    return caught.value.code, caught.value.param


def urls_kept(house):
    return [path.name for path in (house.work.path / "ended").iterdir()]


def test_a_retry_without_a_body_runs_on_the_same_urls(house, ended):
    """Its output takes the place of the first one's, as LSI has it."""
    assert urls_kept(house) == [f"{ended}.json"]
    (house.folder / "out.tar.gz").unlink()
    again, created = retry(house, ended)
    assert (created, again.retry_of, again.retry_count) == (True, ended, 1)
    assert "sig" not in again.output
    assert urls_kept(house) == []
    finish(house, again.id)
    assert (house.folder / "out.tar.gz").exists()


def test_a_repeated_retry_is_the_same_batch_though_the_urls_are_gone(house, ended):
    first, _ = retry(house, ended)
    assert retry(house, ended) == (house.desk.get(ANN, first.id), False)


def test_a_batch_is_retried_twice_however(house, ended):
    first, _ = retry(house, ended, "1")
    finish(house, first.id)
    new = {"input_url": signed(house, "in.tar", 7200), "output_url": signed(house, "out.tar.gz", 7200)}
    second, _ = retry(house, ended, "2", **new)
    assert second.retry_count == 2
    finish(house, second.id)
    for batch_id in (ended, first.id, second.id):
        assert refusal(house, batch_id, **new) == ("retry_limit", None)


def test_a_retry_at_once_finds_the_urls_and_leaves_none(house):
    """The batch has ended and is not erased yet."""
    pack(house)
    batch_id = house.submit(input_url=signed(house, "in.tar", 7200), output_url=signed(house, "o.tar.gz", 7200))
    house.tick()
    house.workers.held.add("delivery")
    house.answer(batch_id)
    house.ledger.deliver(batch_id, "completed")
    assert urls_kept(house) == []
    assert retry(house, batch_id)[1]
    house.tick(1)
    assert house.ledger.batch(batch_id).erased
    assert urls_kept(house) == []


def test_the_failed_rows_alone_need_another_output(house):
    pack(house, data=jobs(2) + b"\nnot json")
    batch_id = house.submit(input_url=signed(house, "in.tar", 7200), output_url=signed(house, "out.tar.gz", 7200))
    finish(house, batch_id)
    assert refusal(house, batch_id, failed_only=True) == ("output_url_required", "output_url")
    same = signed(house, "out.tar.gz", 9000)
    assert refusal(house, batch_id, failed_only=True, output_url=same) == ("output_url_required", "output_url")
    again, _ = retry(house, batch_id, failed_only=True, output_url=signed(house, "more.tar.gz", 9000))
    house.tick(6)
    assert house.desk.get(ANN, again.id).counts.total == 1


def test_urls_that_end_shorten_the_window_or_are_asked_for(house, ended):
    house.clock.now += 6000
    again, _ = retry(house, ended)
    assert again.deadline == house.clock.now + 1200 - 36  # a hundredth of the window is for the delivery
    assert "shortened" in again.warnings[0]


def test_urls_that_have_ended_are_asked_for(house, ended):
    house.clock.now += 7145
    assert refusal(house, ended) == ("url_expired", "input_url")
    house.clock.now += 100
    assert refusal(house, ended) == ("not_retryable", "input_url")
    new_input = signed(house, "in.tar", 7200)
    assert refusal(house, ended, input_url=new_input) == ("output_url_required", "output_url")
    house.tick(1, seconds=61)
    house.tick(1)
    assert urls_kept(house) == []


def test_urls_go_when_the_batch_is_archived(house, ended):
    house.desk.archive(ANN, ended)
    assert urls_kept(house) == []
    assert refusal(house, ended) == ("not_retryable", "input_url")


def test_urls_without_an_end_go_after_a_day_also_after_a_restart(house):
    pack(house)
    batch_id = house.submit(input_url=SecretUrl(f"file://{house.folder}/in.tar?sig=s"), output_url=house.output())
    finish(house, batch_id)
    house.reopen()
    house.clock.now += 86_399
    house.tick(1)
    assert urls_kept(house) == [f"{batch_id}.json"]
    house.clock.now += 61
    house.tick(1)
    assert urls_kept(house) == []


def test_nothing_is_kept_where_it_is_so_configured(folder):
    house = House(folder, keep={"retry_s": 0})
    pack(house)
    batch_id = house.submit(input_url=signed(house, "in.tar", 7200), output_url=signed(house, "out.tar.gz", 7200))
    finish(house, batch_id)
    assert urls_kept(house) == []
    house.ledger.close()


def test_a_retry_whose_input_file_was_deleted_says_so(house):
    file_id = house.upload(1)
    batch_id = house.submit(input_file_id=file_id)
    finish(house, batch_id)
    house.files.delete(ANN, file_id)
    assert refusal(house, batch_id)[0] == "not_retryable"


def test_a_retry_is_refused_while_the_batch_runs(house):
    assert refusal(house, house.submit(1))[0] == "not_retryable"
