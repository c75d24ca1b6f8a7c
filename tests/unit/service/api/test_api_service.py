"""What the service behind the API says or cannot do, in the API's words; and what all its replicas count together."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import anyio
import pytest
from api_requests import FAST, Clock, lsi_body
from fake_backend import ALICE, BOB, FakeBackend
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api import multipart
from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import Caller, ServiceError, Waiting, WriteKind

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


def test_who_was_told_to_wait_does_not_reach_the_actor_until_then(backend: FakeBackend, clock: Clock) -> None:
    asked: list[str] = []
    backend.limiter = RateLimiter(ApiSettings().rates, clock)
    answer = backend.write_wait_s

    async def counted(caller: Caller, kind: WriteKind) -> float:
        asked.append(caller.id)
        return await answer(caller, kind)

    backend.write_wait_s = counted  # type: ignore[method-assign]
    http = TestClient(create_app(backend, ApiSettings(), clock=clock, steady_clock=clock))
    alice, bob = ({"Authorization": f"Bearer {token}"} for token in (ALICE, BOB))
    flood = [http.post(BATCHES, content=b"not read", headers=alice) for _ in range(100)]
    assert [refused.status_code for refused in flood[5:]] == [429] * 95
    assert {refused.headers["Retry-After"] for refused in flood[5:]} == {"1"}
    assert len(asked) == 6
    assert http.post(BATCHES, json=lsi_body(clock), headers=bob).status_code == 201
    assert http.post("/v1/batches", json={}, headers=alice).status_code == 400  # counted by itself
    clock.now += 1.0
    assert [http.post(BATCHES, json=lsi_body(clock), headers=alice).status_code for _ in range(2)] == [201, 429]


def test_one_caller_never_has_all_the_places(backend: FakeBackend, clock: Clock) -> None:
    """Requests that trickle hold a place each, until they end."""
    app = create_app(backend, ApiSettings(max_concurrent=2, rates=FAST), clock=clock)
    anyio.run(_crowd, app)


async def _crowd(app: FastAPI) -> None:
    ends = anyio.Event()

    async def body() -> dict[str, object]:
        await ends.wait()
        return {"type": "http.request", "body": b"{}", "more_body": False}

    async def post(token: str, into: list[int]) -> None:
        async def send(message: dict[str, object]) -> None:
            if "status" in message:
                into.append(int(message["status"]))  # type: ignore[call-overload]

        headers = [(b"authorization", b"Bearer " + token.encode()), (b"content-type", b"application/json")]
        scope = {"type": "http", "method": "POST", "path": BATCHES, "headers": headers, "query_string": b"", "app": app}
        await app(scope, body, send)  # type: ignore[arg-type]

    waiting, refused, other = list[int](), list[int](), list[int]()
    async with anyio.create_task_group() as group:
        for _ in range(2):
            group.start_soon(post, ALICE, waiting)
        await anyio.sleep(0.05)
        await post(ALICE, refused)
        group.start_soon(post, BOB, other)
        await anyio.sleep(0.05)
        assert (waiting, refused, other) == ([], [429], [])
        ends.set()
    assert (waiting, other) == ([400, 400], [400])
    again = list[int]()
    await post(ALICE, again)
    assert again == [400]


def test_nobody_waits_for_the_body_of_a_get(backend: FakeBackend) -> None:
    app = create_app(backend, ApiSettings(body_timeout_s=60))

    async def ask(path: str) -> int:
        sent: list[dict[str, object]] = []

        async def send(message: dict[str, object]) -> None:
            sent.append(message)

        headers = [(b"content-length", b"1000"), (b"authorization", b"Bearer " + ALICE.encode())]
        scope = {"type": "http", "method": "GET", "path": path, "headers": headers, "query_string": b"", "app": app}
        with anyio.fail_after(5):
            await app(scope, anyio.sleep_forever, send)  # type: ignore[arg-type]
        return int(sent[0]["status"])  # type: ignore[call-overload]

    assert [anyio.run(ask, path) for path in ("/v1/inference/health", BATCHES, "/openapi.json")] == [200] * 3


@pytest.mark.parametrize("where", ["before", "after"])
def test_a_form_without_end_around_its_file_is_refused(backend: FakeBackend, where: str) -> None:
    app = create_app(backend, ApiSettings(rates=FAST))
    http = TestClient(app, headers={"Authorization": f"Bearer {ALICE}"})
    file = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'

    def pieces() -> Iterator[bytes]:
        yield file if where == "after" else b""
        yield b"--b0\r\nX-Header: "
        for _ in range(1000):
            yield b"a" * 1000

    kind = {"Content-Type": "multipart/form-data; boundary=b0"}
    answer = http.post("/v1/files", content=pieces(), headers=kind)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, "invalid_multipart")
    assert backend.stored == {}


def test_an_upload_slower_than_anybodys_line_is_cut(backend: FakeBackend, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(multipart, "_SLOWEST", 1_000_000)
    app = create_app(backend, ApiSettings(body_timeout_s=0.1))
    sent: list[dict[str, object]] = []
    head = b'--b0\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\n'
    pieces = itertools.chain([head], itertools.repeat(b"a"))

    async def receive() -> dict[str, object]:
        await anyio.sleep(0.02)
        return {"type": "http.request", "body": next(pieces), "more_body": True}

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    async def upload() -> None:
        kind = (b"content-type", b"multipart/form-data; boundary=b0")
        headers = [(b"authorization", b"Bearer " + ALICE.encode()), kind]
        scope = {"type": "http", "method": "POST", "path": "/v1/files", "headers": headers, "query_string": b""}
        with anyio.fail_after(5):
            await app({**scope, "app": app}, receive, send)  # type: ignore[arg-type]

    anyio.run(upload)
    assert sent[0]["status"] == 408
    assert backend.stored == {}
