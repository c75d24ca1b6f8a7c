"""What the service behind the API says or cannot do, in the API's words; and what all its replicas count together."""

from __future__ import annotations

import pytest
from api_requests import Clock, lsi_body
from fake_backend import ALICE, FakeBackend
from fastapi.testclient import TestClient

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import ServiceError, Waiting

BATCHES = "/v1/inference/batches"


@pytest.mark.parametrize("path", [BATCHES, "/v1/batches"])
def test_a_full_disk_is_no_fault_of_the_request(http: TestClient, backend: FakeBackend, path: str) -> None:
    backend.fail_with, backend.fails = LedgerError("ledger_io", "the ledger could not be written: disk full"), 1
    answer = http.get(f"{path}/batch_1")
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "10")
    assert "x-should-retry" not in answer.headers
    assert answer.json().get("type", "") == ("service_unavailable" if path == BATCHES else "")
    assert "unavailable" in answer.text


def test_messages_have_the_names_of_the_wire(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    """Wherever a message of the service comes out: refusals, findings, what it waits for, warnings."""
    [batch] = http.post(BATCHES, json=lsi_body(clock)).json()
    finding = Finding("input_url_expired", "give input_url again", param="input_url")
    waiting = Waiting("input_url", "PATCH it with a fresh input_url")
    backend.move(batch["id"], BatchStatus.FAILED, findings=(finding,), waiting=waiting, warnings=("output_url ends",))
    for path in (BATCHES, "/v1/batches"):
        shown = http.get(f"{path}/{batch['id']}").json()
        [error] = shown["errors"]["data"]
        assert (error["code"], error["param"]) == ("input_url_expired", "input_file_uri")
        assert error["message"] == "give input_file_uri again"
        assert shown["waiting"]["message"] == "PATCH it with a fresh input_file_uri"
        assert shown["warnings"] == ["output_file_uri ends"]
        backend.fail_with, backend.fails = ServiceError("not_retryable", "give output_url", param="output_url"), 1
        refused = http.post(f"{path}/{batch['id']}/retry")
        assert "give output_file_uri" in refused.text
        assert "_url" not in refused.text


@pytest.mark.parametrize("replicas", [1, 3])
def test_writes_are_counted_once_for_all_replicas(backend: FakeBackend, clock: Clock, replicas: int) -> None:
    backend.limiter = RateLimiter(ApiSettings().rates, clock)
    apps = [TestClient(create_app(backend, ApiSettings(), clock=clock, steady_clock=clock)) for _ in range(replicas)]
    headers = {"Authorization": f"Bearer {ALICE}"}
    answers = [apps[i % replicas].post(BATCHES, json=lsi_body(clock, priority=i), headers=headers) for i in range(12)]
    assert [answer.status_code for answer in answers] == [201] * 5 + [429] * 7
