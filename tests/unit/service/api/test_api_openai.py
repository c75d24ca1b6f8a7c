"""OpenAI's contract, with the unmodified `openai` package as the client and its types as the oracle."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Callable, Iterator

import openai
import pytest
from api_requests import Clock, signed
from fake_backend import ALICE, BOB, MODEL, FakeBackend
from openai.types import Batch, FileDeleted, FileObject
from openai.types.batch_usage import BatchUsage

from lsi_ray.errors import Finding
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Counts, Result, ServiceError, Usage

LINES = b'{"custom_id":"a","method":"POST","url":"/v1/embeddings","body":{"model":"m","input":"x"}}\n'


@pytest.fixture
def connect(served: str) -> Iterator[Callable[..., openai.OpenAI]]:
    clients = []

    def connect(token: str = ALICE, **options: object) -> openai.OpenAI:
        clients.append(openai.OpenAI(base_url=f"{served}/v1", api_key=token, **options))  # type: ignore[arg-type]
        return clients[-1]

    yield connect
    for client in clients:
        client.close()


@pytest.fixture
def client(connect: Callable[..., openai.OpenAI]) -> openai.OpenAI:
    return connect()


@pytest.fixture
def file_id(client: openai.OpenAI) -> str:
    return client.files.create(file=("in.jsonl", LINES), purpose="batch").id


@pytest.fixture
def batch(client: openai.OpenAI, file_id: str) -> Batch:
    return client.batches.create(
        input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h", metadata={"job": "nightly"}
    )


def test_a_new_batch_is_as_openai_says(batch: Batch, file_id: str, clock: Clock) -> None:
    strict = Batch.model_validate(batch.to_dict(), strict=True)
    assert (strict.object, strict.status, strict.input_file_id) == ("batch", "validating", file_id)
    assert (strict.created_at, strict.expires_at) == (int(clock.now), int(clock.now) + 86_400)
    assert strict.request_counts is not None
    assert strict.request_counts.to_dict() == {"total": 0, "completed": 0, "failed": 0}
    assert strict.metadata == {"job": "nightly"}
    nulls = ("errors", "output_file_id", "error_file_id", "in_progress_at", "completed_at", "cancelled_at")
    assert [name for name in nulls if batch.to_dict(exclude_unset=True)[name] is not None] == []
    assert batch.model == MODEL


def test_every_field_of_openais_type_is_there(batch: Batch) -> None:
    sent = batch.to_dict(exclude_unset=True)
    assert Batch.model_fields.keys() - sent.keys() == set()
    told = batch.usage.to_dict().keys()  # type: ignore[union-attr]
    assert told - BatchUsage.model_fields.keys() == {"deduplicated"}
    assert BatchUsage.model_fields.keys() - told == set()


@pytest.mark.parametrize("status", list(BatchStatus))
def test_every_state_validates_strictly(
    client: openai.OpenAI, batch: Batch, backend: FakeBackend, status: BatchStatus, clock: Clock
) -> None:
    clock.now += 5.9
    changes = {"counts": Counts(9, 5, 4), "usage": Usage(100, 10, 7), "error_file_id": "file-9"}
    backend.move(batch.id, status, findings=(Finding("empty_file", "no rows", None, "x"),), **changes)
    got = Batch.model_validate(client.batches.retrieve(batch.id).to_dict(), strict=True)
    assert got.status == status
    assert status == "validating" or getattr(got, f"{status}_at") == int(clock.now)
    assert got.errors is not None
    assert got.errors.data is not None
    assert (got.errors.object, got.errors.data[0].code) == ("list", "empty_file")
    assert got.usage is not None
    assert (got.usage.total_tokens, got.usage.input_tokens_details.cached_tokens) == (110, 7)
    assert got.progress["rows"] == 9  # type: ignore[attr-defined]


def test_list_pages_by_cursor_to_the_end(client: openai.OpenAI, file_id: str) -> None:
    ids = [
        client.batches.create(
            input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h", extra_body={"priority": i}
        ).id
        for i in range(5)
    ]
    assert [batch.id for batch in client.batches.list(limit=2)] == ids[::-1]
    page = client.batches.list(limit=3)
    assert (page.has_more, page.data[-1].id) == (True, ids[2])
    with pytest.raises(openai.NotFoundError):
        client.batches.list(after="batch_none")


def test_cancel(client: openai.OpenAI, batch: Batch, backend: FakeBackend) -> None:
    assert client.batches.cancel(batch.id).status == "cancelling"
    backend.move(batch.id, BatchStatus.CANCELLED)
    with pytest.raises(openai.ConflictError, match="cancelled already") as refused:
        client.batches.cancel(batch.id)
    assert (refused.value.code, refused.value.response.headers["x-should-retry"]) == ("not_cancellable", "false")


def test_any_window_and_lsis_names_pass_through_the_sdk(
    client: openai.OpenAI, file_id: str, backend: FakeBackend
) -> None:
    batch = client.batches.create(
        input_file_id=file_id,
        endpoint="/v1/embeddings",
        completion_window="2w",  # type: ignore[arg-type]
        extra_body={"model_id": MODEL, "store": "s3"},
        output_expires_after={"anchor": "created_at", "seconds": 7200},
    )
    submission = backend.submissions[batch.id]
    assert (submission.window_s, submission.model, submission.output_expires_after_s) == (14 * 86_400, MODEL, 7200)


def test_a_file_goes_through_its_whole_life(client: openai.OpenAI, clock: Clock) -> None:
    expiry = {"anchor": "created_at", "seconds": 3600}
    made = client.files.create(file=("dir/in.jsonl", LINES), purpose="batch", expires_after=expiry)  # type: ignore[arg-type]
    strict = FileObject.model_validate(made.to_dict(), strict=True)
    assert (strict.object, strict.bytes, strict.purpose, strict.status) == ("file", len(LINES), "batch", "processed")
    assert (strict.filename, strict.expires_at) == ("in.jsonl", int(clock.now) + 3600)
    assert client.files.retrieve(made.id).id == made.id
    assert client.files.content(made.id).read() == LINES
    assert [file.id for file in client.files.list(purpose="batch")] == [made.id]
    assert list(client.files.list(purpose="batch_output")) == []
    deleted = FileDeleted.model_validate(client.files.delete(made.id).to_dict(), strict=True)
    assert (deleted.id, deleted.deleted) == (made.id, True)
    with pytest.raises(openai.NotFoundError):
        client.files.retrieve(made.id)


def test_files_page_in_both_orders(client: openai.OpenAI) -> None:
    ids = [client.files.create(file=(f"{i}.jsonl", LINES), purpose="batch").id for i in range(5)]
    assert [file.id for file in client.files.list(limit=2)] == ids[::-1]
    assert [file.id for file in client.files.list(limit=2, order="asc")] == ids


def test_a_tar_is_stored_byte_by_byte(client: openai.OpenAI) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as tar:
        tar.addfile(tarfile.TarInfo("jobs.jsonl"), io.BytesIO())
    made = client.files.create(file=("in.tar.gz", buffer.getvalue()), purpose="batch")
    assert client.files.content(made.id).read() == buffer.getvalue()


def test_the_sdk_repeats_a_lost_answer_and_gets_the_same_batch(
    client: openai.OpenAI, file_id: str, backend: FakeBackend
) -> None:
    """The batch is made, then the answer fails: the SDK sends the same POST again, with no key."""
    backend.fail_with, backend.fails = ServiceError("unavailable", "the ledger restarts", retry_after_s=0.01), 1
    raw = client.batches.with_raw_response.create(
        input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h"
    )
    assert raw.retries_taken == 1
    assert raw.headers["Idempotent-Replayed"] == "true"
    assert raw.parse().created is False  # type: ignore[attr-defined]
    assert len(backend.batches) == 1


def test_the_sdk_does_not_repeat_what_capacity_refuses(
    client: openai.OpenAI, batch: Batch, backend: FakeBackend
) -> None:
    message = "Cannot be done within 15m; 3h would do"
    backend.fail_with, backend.fails = ServiceError("no_capacity", message, retry_after_s=900), 5
    with pytest.raises(openai.RateLimitError, match="3h would do") as refused:
        client.batches.retrieve(batch.id)
    assert backend.fails == 4
    assert (refused.value.code, refused.value.response.headers["Retry-After"]) == ("no_capacity", "900")


def test_errors_reach_the_sdk_as_its_own(connect: Callable[..., openai.OpenAI], file_id: str, batch: Batch) -> None:
    client = connect()
    with pytest.raises(openai.BadRequestError) as refused:
        client.batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="7days")  # type: ignore[arg-type]
    assert (refused.value.param, refused.value.code) == ("completion_window", "invalid_value")
    assert "15m" in refused.value.message
    with pytest.raises(openai.AuthenticationError):
        connect("lsi-wrong").batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        connect(BOB).batches.retrieve(batch.id)
    with pytest.raises(openai.NotFoundError):
        connect(BOB).batches.create(input_file_id=file_id, endpoint="/v1/embeddings", completion_window="24h")
    with pytest.raises(openai.BadRequestError, match="purpose"):
        client.files.create(file=("x", b"x"), purpose="vision")


def test_lsis_surface_works_from_the_sdk_too(client: openai.OpenAI, clock: Clock) -> None:
    body = {
        "input_file_uri": signed(clock.now, 9e5),
        "output_file_uri": signed(clock.now, 9e5),
        "endpoint": "/v1/chat/completions",
        "model_id": MODEL,
        "completion_window": "7d",
        "store": "s3",
    }
    [made] = client.post("/inference/batches", cast_to=object, body=body)  # type: ignore[misc]
    seen = client.batches.retrieve(made["id"])  # type: ignore[index]
    assert Batch.model_validate(seen.to_dict(), strict=True).input_file_id.endswith("in.tar.gz?<redacted>")


def test_results_and_models_from_the_sdk(client: openai.OpenAI, batch: Batch, backend: FakeBackend) -> None:
    backend.rows[batch.id] = [Result(0, "output", b'{"custom_id":"a"}')]
    text = client.get(f"/batches/{batch.id}/results", cast_to=str)
    assert text.splitlines()[0] == '{"row":0,"kind":"output","line":{"custom_id":"a"}}'
    assert [model.id for model in client.models.list()] == [MODEL]
