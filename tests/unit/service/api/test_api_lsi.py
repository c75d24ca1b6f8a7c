"""LSI's contract: its table of fields, statuses and forms, by name."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from api_requests import SECRET, Clock, lsi_body, signed
from fake_backend import BOB, MODEL, FakeBackend
from fastapi.testclient import TestClient
from lsi_contract import ERROR_TYPES, FIELDS, STATUSES

from lsi_ray.errors import Finding
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Counts, ErrorCount, Eta, ServiceError, Speed, Usage, Waiting

BATCHES = "/v1/inference/batches"


@pytest.fixture
def batch_id(http: TestClient, clock: Clock) -> str:
    return str(http.post(BATCHES, json=lsi_body(clock)).json()[0]["id"])


def holds(kind: str, value: object) -> bool:
    match kind:
        case "string":
            return isinstance(value, str) and value != ""
        case "integer":
            return type(value) is int
        case "boolean":
            return type(value) is bool
        case "time":
            return isinstance(value, str) and datetime.fromisoformat(value).tzinfo is not None
        case "map" | "counts" | "errors":
            return isinstance(value, dict)
    raise AssertionError(kind)


def parse(text: str) -> float:
    return datetime.fromisoformat(text).timestamp()


def test_one_object_gives_an_array_with_every_field_of_the_contract(http: TestClient, clock: Clock) -> None:
    answer = http.post(BATCHES, json=lsi_body(clock))
    assert answer.status_code == 201
    [batch] = answer.json()
    assert [name for name, kind in FIELDS.items() if not kind.endswith("?") and not holds(kind, batch[name])] == []
    assert batch["status"] == "accepted"
    assert batch["object"] == "batch"
    assert batch["request_counts"] == {"total": 0, "completed": 0, "failed": 0}
    assert (batch["retry_count"], batch["is_retry"], batch["metadata"]) == (0, False, {"k": "v"})
    assert batch["completion_window"] == "7d"
    assert parse(batch["created_at"]) == clock.now
    assert parse(batch["deadline_at"]) == parse(batch["expires_at"]) == clock.now + 7 * 86_400
    assert "completed_at" not in batch
    assert batch["created"] is True


def test_an_array_gives_a_batch_for_each(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    two = [lsi_body(clock), lsi_body(clock, completion_window="24h", priority=5)]
    answer = http.post(BATCHES, json=two)
    assert [batch["completion_window"] for batch in answer.json()] == ["7d", "24h"]
    assert [batch["priority"] for batch in answer.json()] == [0, 5]
    assert len(backend.batches) == 2


def test_an_array_with_one_bad_request_makes_no_batch_and_names_it(
    http: TestClient, clock: Clock, backend: FakeBackend
) -> None:
    answer = http.post(BATCHES, json=[lsi_body(clock), lsi_body(clock, completion_window="99w")])
    assert answer.status_code == 400
    assert answer.json()["details"][0]["field"] == "[1].completion_window"
    assert backend.batches == {}


def test_urls_reach_the_backend_and_nobody_else(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    body = lsi_body(clock, webhook={"url": signed(clock.now, 9e5, "hook"), "secret": "whsec_" + "QUJD" * 8})
    answer = http.post(BATCHES, json=body)
    [batch] = answer.json()
    submission = backend.submissions[batch["id"]]
    assert submission.input_url is not None
    assert submission.input_url.reveal() == body["input_file_uri"]
    assert submission.webhook is not None
    assert submission.webhook.secret.get_secret_value() == "whsec_" + "QUJD" * 8
    assert batch["input_file_uri"] == "https://bucket.s3.eu-central-1.amazonaws.com/jobs/in.tar.gz?<redacted>"
    for text in (answer.text, repr(submission), http.get(BATCHES).text):
        assert SECRET not in text
        assert "QUJD" not in text


def test_the_first_version_of_the_request_is_still_understood(
    http: TestClient, clock: Clock, backend: FakeBackend
) -> None:
    price = {"cents_per_million_input_tokens": 100, "cents_per_million_output_tokens": 100}
    body = lsi_body(clock, metadata={"model": MODEL}, price=price)
    del body["model_id"]
    [batch] = http.post(BATCHES, json=body).json()
    assert backend.submissions[batch["id"]].model == MODEL
    assert "price is ignored" in batch["warnings"][0]


def test_list_is_a_bare_array_paged_by_offset(http: TestClient, clock: Clock) -> None:
    ids = [http.post(BATCHES, json=lsi_body(clock, priority=i)).json()[0]["id"] for i in range(5)]
    assert [b["id"] for b in http.get(BATCHES, params={"limit": 2, "after": 1}).json()] == [ids[3], ids[2]]
    assert http.get(BATCHES, params={"limit": 2, "after": 5}).json() == []
    assert len(http.get(BATCHES).json()) == 5


def test_an_archived_batch_leaves_the_list_and_stays_readable(http: TestClient, batch_id: str) -> None:
    answer = http.post(f"{BATCHES}/{batch_id}/archive")
    assert (answer.status_code, answer.content) == (204, b"")
    assert http.get(BATCHES).json() == []
    assert [b["id"] for b in http.get(BATCHES, params={"archived": True}).json()] == [batch_id]
    assert http.get(f"{BATCHES}/{batch_id}").json()["archived"] is True


def test_cancel_and_retry(http: TestClient, batch_id: str, backend: FakeBackend, clock: Clock) -> None:
    assert http.post(f"{BATCHES}/{batch_id}/retry").status_code == 409
    assert http.post(f"{BATCHES}/{batch_id}/cancel").json()["status"] == "cancelling"
    backend.move(batch_id, BatchStatus.CANCELLED)
    assert parse(http.get(f"{BATCHES}/{batch_id}").json()["cancelled_at"]) == clock.now
    new = http.post(f"{BATCHES}/{batch_id}/retry").json()
    assert (new["is_retry"], new["retry_count"], new["retry_of"]) == (True, 1, batch_id)
    assert new["status"] == "retrying"
    assert new["id"] != batch_id


def test_retry_of_failed_rows_with_new_urls(
    http: TestClient, batch_id: str, backend: FakeBackend, clock: Clock
) -> None:
    backend.move(batch_id, BatchStatus.COMPLETED)
    out = signed(clock.now, 100_000, "again.tar.gz")
    body = {"failed_only": True, "output_file_uri": out, "completion_window": "24h"}
    new = http.post(f"{BATCHES}/{batch_id}/retry", json=body).json()
    [retry] = backend.changes
    assert retry.failed_only
    assert retry.output_url.reveal() == out
    assert new["completion_window"] == "24h"


def test_a_field_is_refused_by_its_name_on_the_wire(http: TestClient, batch_id: str, backend: FakeBackend) -> None:
    backend.fail_with, backend.fails = ServiceError("output_url_required", "give one", param="output_url"), 2
    detail = http.post(f"{BATCHES}/{batch_id}/retry").json()["details"][0]
    error = http.post(f"/v1/batches/{batch_id}/retry").json()["error"]
    assert detail["field"] == error["param"] == "output_file_uri"


@pytest.mark.parametrize("status", list(BatchStatus))
def test_every_state_has_a_word_of_the_contract(
    http: TestClient, batch_id: str, backend: FakeBackend, status: BatchStatus
) -> None:
    backend.move(batch_id, status, waiting=Waiting("queued", "2 batches are before it", 2))
    batch = http.get(f"{BATCHES}/{batch_id}").json()
    assert batch["status"] in STATUSES
    assert batch["status"] == ("not_started" if status == BatchStatus.IN_PROGRESS else status)
    if status != BatchStatus.VALIDATING:
        assert f"{status}_at" in batch
    shown = FIELDS.keys() & batch.keys()
    assert [name for name in shown if not holds(FIELDS[name].rstrip("?"), batch[name])] == []


def test_what_goes_beyond_the_contract(http: TestClient, batch_id: str, backend: FakeBackend, clock: Clock) -> None:
    backend.move(
        batch_id,
        BatchStatus.IN_PROGRESS,
        started=True,
        counts=Counts(10, 3, 2),
        usage=Usage(1000, 200, 64),
        speed=Speed(2.5, 600.0),
        eta=Eta(clock.now + 60, clock.now + 90, False),
        waiting=Waiting("model_loading", "the engine starts"),
        error_digest=(ErrorCount("file_not_found", 2, "no files/a.png", 4, "r-4"),),
    )
    batch = http.get(f"{BATCHES}/{batch_id}").json()
    assert batch["status"] == "in_progress"  # rows have ended: it no longer just waits
    assert batch["usage"]["total_tokens"] == 1200
    assert batch["usage"]["input_tokens_details"] == {"cached_tokens": 64}
    assert batch["progress"] == {
        "rows": 5,
        "total_rows": 10,
        "fraction": 0.5,
        "tokens": 1200,
        "rows_per_second": 2.5,
        "tokens_per_second": 600.0,
    }
    assert parse(batch["eta"]["p90"]) == clock.now + 90
    assert batch["eta"]["at_risk"] is False
    assert batch["waiting"]["reason"] == "model_loading"
    [entry] = batch["error_digest"]
    assert (entry["code"], entry["count"], entry["example"]["custom_id"]) == ("file_not_found", 2, "r-4")


def test_findings_have_the_shape_of_openai(http: TestClient, batch_id: str, backend: FakeBackend) -> None:
    backend.move(batch_id, BatchStatus.FAILED, findings=(Finding("invalid_json_line", "not JSON", 3),))
    errors = http.get(f"{BATCHES}/{batch_id}").json()["errors"]
    assert errors["object"] == "list"
    assert errors["data"][0] | {"param": None} == {
        "code": "invalid_json_line",
        "message": "not JSON",
        "line": 3,
        "param": None,
    }


def test_models_and_health(http: TestClient) -> None:
    first, old = http.get("/v1/inference/models").json()
    assert first.keys() >= {"id", "display_name", "created_at", "retired", "size"}
    assert (first["retired"], old["retired"]) == (False, True)
    assert datetime.fromisoformat(first["created_at"]).tzinfo == UTC
    health = http.get("/v1/inference/health", headers={"Authorization": ""})
    assert (health.status_code, health.json()) == (200, {"status": "ok"})


@pytest.mark.parametrize(
    ("method", "path"),
    [("GET", ""), ("POST", "/cancel"), ("POST", "/retry"), ("POST", "/archive"), ("GET", "/results"), ("PATCH", "")],
)
def test_another_callers_batch_does_not_exist(http: TestClient, batch_id: str, method: str, path: str) -> None:
    def ask(name: str) -> tuple[int, dict[str, object]]:
        body = {"priority": 1} if method == "PATCH" else None
        headers = {"Authorization": f"Bearer {BOB}"}
        answer = http.request(method, f"{BATCHES}/{name}{path}", json=body, headers=headers)
        return answer.status_code, {**answer.json(), "message": answer.json()["message"].replace(name, "ID")}

    status, body = ask(batch_id)
    other_status, other_body = ask("batch_9999")
    assert (status, body["type"], body["message"]) == (404, "not_found", other_body["message"])
    assert other_status == 404
    assert body["type"] in ERROR_TYPES
