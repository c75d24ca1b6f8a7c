"""The client against the real application on a real socket."""

from __future__ import annotations

import json
import random
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from api_requests import SECRET, Clock, signed
from fake_backend import ALICE, MODEL, FakeBackend

from lsi_ray.client import Client, ServiceRefused, ServiceUnreachable
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Counts, ErrorCount, Eta, Result, ServiceError, Usage, Waiting


class Sleeps(list[float]):
    """Takes the place of time.sleep; what is done while asleep is up to the test."""

    def __call__(self, seconds: float) -> None:
        self.append(seconds)
        if self.then:
            self.then.pop(0)()

    def __init__(self) -> None:
        super().__init__()
        self.then: list[object] = []


@pytest.fixture
def sleeps() -> Sleeps:
    return Sleeps()


@pytest.fixture
def client(served: str, sleeps: Sleeps) -> Iterator[Client]:
    with Client(served, ALICE, sleep=sleeps) as client:
        yield client


@pytest.fixture
def urls(clock: Clock) -> dict[str, str]:
    return {"input": signed(clock.now, 9e5), "output": signed(clock.now, 9e5, "out.tar.gz")}


def test_submit_by_urls(client: Client, urls: dict[str, str], clock: Clock, backend: FakeBackend) -> None:
    batch = client.submit(**urls, model=MODEL, window="7d", metadata={"a": "b"}, priority=3)
    assert (batch.status, batch.created, batch.done) == ("accepted", True, False)
    assert (batch.model, batch.window, batch.metadata, batch.priority) == (MODEL, "7d", {"a": "b"}, 3)
    assert (batch.created_at.timestamp(), batch.deadline_at.timestamp()) == (clock.now, clock.now + 7 * 86_400)
    assert backend.submissions[batch.id].input_url.reveal() == urls["input"]  # type: ignore[union-attr]
    assert client.get(batch.id).id == batch.id
    assert [b.id for b in client.list()] == [batch.id]


def test_submit_by_file_and_fetch_what_came_of_it(client: Client, backend: FakeBackend, tmp_path: Path) -> None:
    content = random.Random(3).randbytes(300_000)
    (tmp_path / "in.tar").write_bytes(content)
    file = client.upload(tmp_path / "in.tar")
    assert (file.bytes, file.filename, file.purpose) == (len(content), "in.tar", "batch")
    batch = client.submit(input=file.id, endpoint="/v1/embeddings", model=MODEL)
    assert (batch.input, batch.output, batch.status) == (file.id, None, "validating")
    made = backend.keep("acct_alice", "output.jsonl", content, "batch_output")
    backend.move(batch.id, BatchStatus.COMPLETED, output_file_id=made.id)
    done = client.wait(batch.id)
    assert done.output_file_id is not None
    client.download(done.output_file_id, tmp_path / "out")
    assert (tmp_path / "out").read_bytes() == content
    assert [f.id for f in client.files(purpose="batch_output")] == [made.id]
    client.delete_file(file.id)
    with pytest.raises(ServiceRefused) as refused:
        client.file(file.id)
    assert (refused.value.status, refused.value.code) == (404, "not_found")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in.tar", "out"]


def test_wait_shows_progress_until_the_end(
    client: Client, urls: dict[str, str], backend: FakeBackend, clock: Clock, sleeps: Sleeps
) -> None:
    batch_id = client.submit(**urls).id
    running = {
        "started": True,
        "counts": Counts(4, 1, 1),
        "usage": Usage(10, 5, 2),
        "eta": Eta(clock.now, clock.now + 9, True),
        "waiting": Waiting("no_capacity", "no GPU is free", 2),
        "error_digest": (ErrorCount("bad", 1, "it is bad", 7, "r7"),),
    }
    sleeps.then = [
        lambda: backend.move(batch_id, BatchStatus.IN_PROGRESS, **running),
        lambda: backend.move(batch_id, BatchStatus.COMPLETED, counts=Counts(4, 3, 1), eta=None),
    ]
    seen = []
    done = client.wait(batch_id, progress=seen.append)
    assert [b.status for b in seen] == ["accepted", "in_progress", "completed"]
    middle = seen[1]
    assert (middle.progress.rows, middle.progress.fraction, middle.usage.total) == (2, 0.5, 15)
    assert middle.eta is not None
    assert (middle.eta.at_risk, middle.eta.p90.timestamp()) == (True, clock.now + 9)
    assert middle.waiting is not None
    assert middle.waiting.queue_position == 2
    assert (middle.error_digest[0].message, middle.error_digest[0].custom_id) == ("it is bad", "r7")
    assert (done.done, done.counts.completed) == (True, 3)
    assert done.times["completed_at"].timestamp() == clock.now


def test_wait_ends_in_time(client: Client, urls: dict[str, str], sleeps: Sleeps) -> None:
    batch_id = client.submit(**urls).id
    with pytest.raises(TimeoutError, match="accepted after"):
        client.wait(batch_id, timeout_s=0.1)
    assert sleeps == []


def test_a_submit_whose_answer_was_lost_makes_one_batch(
    client: Client, urls: dict[str, str], backend: FakeBackend, sleeps: Sleeps
) -> None:
    backend.fail_with, backend.fails = ServiceError("unavailable", "restarting", retry_after_s=7), 2
    batch = client.submit(**urls)
    assert (batch.created, len(backend.batches), sleeps) == (False, 1, [7.0, 7.0])
    assert client.submit(**urls).id != batch.id  # another call is another batch
    first, second = (client.submit(**urls, idempotency_key="mine") for _ in range(2))
    assert first.id == second.id


def test_what_no_repetition_mends_is_raised_at_once(
    client: Client, urls: dict[str, str], backend: FakeBackend, sleeps: Sleeps
) -> None:
    batch_id = client.submit(**urls).id
    backend.fail_with, backend.fails = ServiceError("no_capacity", "ask for 3h", retry_after_s=60), 9
    with pytest.raises(ServiceRefused, match="ask for 3h") as refused:
        client.get(batch_id)
    assert (refused.value.status, refused.value.code, refused.value.retry_after_s) == (429, "no_capacity", 60.0)
    assert (backend.fails, sleeps) == (8, [])


def test_repetition_ends(client: Client, urls: dict[str, str], backend: FakeBackend, sleeps: Sleeps) -> None:
    batch_id = client.submit(**urls).id
    backend.fail_with, backend.fails = ServiceError("unavailable", "down"), 99
    with pytest.raises(ServiceRefused, match="down"):
        client.get(batch_id)
    assert len(sleeps) == 4


def test_errors_name_the_field_and_hide_the_secret(client: Client, urls: dict[str, str]) -> None:
    for change, param in (({"window": "7days"}, "completion_window"), ({"output": signed(0, 60)}, "output_file_uri")):
        with pytest.raises(ServiceRefused) as refused:
            client.submit(**(urls | change))  # type: ignore[arg-type]
        assert refused.value.param == param
        assert SECRET not in f"{refused.value!r} {refused.value}"
    assert ALICE not in repr(client) + repr(vars(client))


def test_nobody_listens(sleeps: Sleeps) -> None:
    with Client("http://127.0.0.1:9", ALICE, sleep=sleeps, attempts=3) as client, pytest.raises(ServiceUnreachable):
        client.health()
    assert len(sleeps) == 2


def test_results_follow_a_running_batch_over_broken_connections(
    client: Client, urls: dict[str, str], backend: FakeBackend, sleeps: Sleeps
) -> None:
    batch_id = client.submit(**urls).id
    backend.move(batch_id, BatchStatus.IN_PROGRESS)
    rng = random.Random(11)
    ready = 500

    async def results(_caller: object, _batch_id: str, after_row: int) -> AsyncIterator[Result]:
        breaks_at = after_row + rng.randrange(1, 4000)
        for row in range(after_row + 1, ready):
            if row == breaks_at:
                raise ServiceError("unavailable", "a replica went away")
            yield Result(row, "error" if row % 100 == 7 else "output", json.dumps({"custom_id": str(row)}).encode())

    def finish() -> None:
        nonlocal ready
        ready += 1500
        if ready == 5000:
            backend.move(batch_id, BatchStatus.COMPLETED)

    sleeps.then = [finish] * 3
    backend.results = results  # type: ignore[method-assign,assignment]
    got = list(client.results(batch_id, follow=True))
    assert [result.row for result in got] == list(range(5000)), "seed 11"
    assert [r.row for r in got if r.failed] == list(range(7, 5000, 100))
    assert got[4321].line == {"custom_id": "4321"}
    assert [r.row for r in client.results(batch_id, after=4990)] == list(range(4991, 5000))


def test_cancel_retry_patch_archive(client: Client, urls: dict[str, str], backend: FakeBackend, clock: Clock) -> None:
    batch_id = client.submit(**urls).id
    assert client.patch(batch_id, window="2d", priority=4).priority == 4
    new = signed(clock.now, 9e5, "new.tar.gz")
    assert str(client.patch(batch_id, output=new).output).endswith("new.tar.gz?<redacted>")
    assert client.cancel(batch_id).status == "cancelling"
    backend.move(batch_id, BatchStatus.CANCELLED)
    again = client.retry(batch_id, failed_only=True, output=new)
    assert (again.retry_of, again.created) == (batch_id, True)
    client.archive(batch_id)
    assert [b.id for b in client.list()] == [again.id]
    assert [m.id for m in client.models() if not m.retired] == [MODEL]
    assert client.health()["status"] == "ok"
