"""What is refused before it reaches the backend, and what a repeated request gets."""

from __future__ import annotations

import json
import logging
import random
from collections.abc import AsyncIterator

import anyio
import httpx
import pytest
from api_requests import SECRET, Clock, lsi_body, signed
from fake_backend import ALICE, BOB, READER, FakeBackend
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.api.window import parse_window
from lsi_ray.service.backend import Result, ServiceError

BATCHES = "/v1/inference/batches"
JSON = {"Content-Type": "application/json"}


@pytest.mark.parametrize(
    ("text", "seconds"), [("15m", 900), ("24h", 86_400), ("7d", 604_800), ("2w", 1_209_600), ("168h", 604_800)]
)
def test_windows(text: str, seconds: float) -> None:
    assert parse_window(text) == seconds


@pytest.mark.parametrize(
    "text",
    [
        "",
        "7",
        "d",
        "7D",
        " 7d",
        "7d ",
        "7d\n",
        "07d",
        "0d",
        "-7d",
        "1.5h",
        "7days",
        "1d12h",
        "٧d",
        "1000000m",
        "7s",
        "nan",
    ],
)
def test_what_is_no_window(http: TestClient, clock: Clock, text: str) -> None:
    with pytest.raises(ValueError, match="write a whole number"):
        parse_window(text)
    answer = http.post(BATCHES, json=lsi_body(clock, completion_window=text))
    assert (answer.status_code, answer.json()["details"][0]["field"]) == (400, "completion_window")


@pytest.mark.parametrize("text", ["31d", "5w", "721h"])
def test_windows_have_bounds(http: TestClient, clock: Clock, text: str) -> None:
    answer = http.post(BATCHES, json=lsi_body(clock, completion_window=text))
    assert answer.status_code == 400
    assert "not between 1m and 30d" in answer.json()["message"]


@pytest.mark.parametrize(
    ("change", "code", "field"),
    [
        ({"completion_windw": "7d"}, "unknown_field", "completion_windw"),
        ({"endpoint": "/v1/moderations"}, "invalid_value", "endpoint"),
        ({"endpoint": None}, "invalid_value", "endpoint"),
        ({"input_file_uri": 7}, "invalid_value", "input_file_uri"),
        ({"store": "gcs"}, "invalid_value", "store"),
        ({"metadata": {"k": 1}}, "invalid_value", "metadata.k"),
        ({"metadata": {"k" * 65: "v"}}, "invalid_value", "metadata." + "k" * 64),
        ({"metadata": {str(i): "" for i in range(17)}}, "invalid_value", "metadata"),
        ({"priority": 101}, "invalid_value", "priority"),
        ({"priority": -101}, "invalid_value", "priority"),
        ({"priority": True}, "invalid_value", "priority"),
        ({"priority": "1"}, "invalid_value", "priority"),
        ({"model_id": "nobody/knows"}, "model_not_found", "model_id"),
        ({"webhook": {"url": "https://a.example/"}}, "missing_required_parameter", "webhook.secret"),
        ({"webhook": {"url": "https://a.example/", "secret": "short"}}, "invalid_value", "webhook.secret"),
        ({"webhook": {"url": "https://a.example/", "secret": "whsec_no base64!"}}, "invalid_value", "webhook.secret"),
    ],
)
def test_a_bad_field_is_named(http: TestClient, clock: Clock, change: dict[str, object], code: str, field: str) -> None:
    answer = http.post(BATCHES, json=lsi_body(clock, **change))
    assert answer.status_code == 400
    [detail] = answer.json()["details"]
    assert (detail["code"], detail["field"]) == (code, field)
    assert SECRET not in answer.text


def test_all_that_is_wrong_is_said_at_once(http: TestClient) -> None:
    answer = http.post(BATCHES, json={"endpoint": "/v1/chat/completions", "completion_window": "7 d", "x": 1})
    assert {detail["field"] for detail in answer.json()["details"]} == {
        "input_file_uri",
        "output_file_uri",
        "completion_window",
        "x",
    }
    assert answer.json()["type"] == "invalid_request_error"


@pytest.mark.parametrize("content", [b"", b"{", b"[1,", b"\xff\xfe", b'"text"', b"null", b"[]", b"[[]]", b"NaN"])
@pytest.mark.parametrize("path", [BATCHES, "/v1/batches"])
def test_bodies_that_are_no_request(http: TestClient, path: str, content: bytes) -> None:
    answer = http.post(path, content=content, headers=JSON)
    assert answer.status_code == 400
    assert ("details" in answer.json()) == (path == BATCHES)
    assert ("error" in answer.json()) == (path != BATCHES)


def test_a_form_instead_of_json_is_told_what_to_send(http: TestClient) -> None:
    answer = http.post("/v1/batches", data={"input_file_id": "file-1"})
    assert "Content-Type: application/json" in answer.json()["error"]["message"]


@pytest.mark.parametrize("declared", [True, False])
def test_a_body_over_the_limit_is_refused(http: TestClient, clock: Clock, declared: bool) -> None:
    body = json.dumps(lsi_body(clock, metadata={"k": "v" * 70_000})).encode()
    content = body if declared else iter([body[:1000], body[1000:]])
    assert http.post(BATCHES, content=content, headers=JSON).status_code == 413  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "header", ["", "Bearer", "Bearer lsi-nobody", "Basic abc", f"Bearer {ALICE} {BOB}", "Bearer \xe9"]
)
@pytest.mark.parametrize("path", [BATCHES, "/v1/batches", "/v1/files", "/v1/nothing", "/v1/inference/health/x"])
def test_no_token_no_answer(http: TestClient, header: str, path: str) -> None:
    answer = http.get(path, headers={"Authorization": header.encode("latin-1")})  # type: ignore[dict-item]
    assert (answer.status_code, answer.headers["WWW-Authenticate"]) == (401, "Bearer")


def test_a_bad_token_is_refused_before_its_body_is_read(http: TestClient) -> None:
    headers = {**JSON, "Authorization": "Bearer lsi-nobody"}
    assert http.post(BATCHES, content=b"{" * 100_000, headers=headers).status_code == 401


def test_a_reading_token_cannot_write(http: TestClient, clock: Clock) -> None:
    headers = {"Authorization": f"Bearer {READER}"}
    assert http.get(BATCHES, headers=headers).status_code == 200
    answer = http.post(BATCHES, json=lsi_body(clock), headers=headers)
    assert (answer.status_code, answer.json()["type"]) == (403, "forbidden")


def test_one_request_a_second_for_each_caller(backend: FakeBackend, clock: Clock) -> None:
    backend.limiter = RateLimiter(ApiSettings().rates, clock)
    http = TestClient(create_app(backend, ApiSettings(), clock=clock, steady_clock=clock))
    alice, bob = ({"Authorization": f"Bearer {token}"} for token in (ALICE, BOB))

    def post(headers: dict[str, str]) -> httpx.Response:
        return http.post(BATCHES, json=lsi_body(clock), headers=headers)

    assert [post(alice).status_code for _ in range(6)] == [201] * 5 + [429]
    refused = post(alice)
    assert (refused.headers["Retry-After"], "x-should-retry" in refused.headers) == ("1", False)
    assert post(bob).status_code == 201
    assert http.get(BATCHES, headers=alice).status_code == 200  # reading has its own allowance
    clock.now += 1.0
    assert [post(alice).status_code for _ in range(2)] == [201, 429]


def test_the_same_body_soon_is_the_same_batch_and_later_a_new_one(http: TestClient, clock: Clock) -> None:
    body = lsi_body(clock)
    first = http.post(BATCHES, json=body)
    clock.now += 100
    second = http.post(BATCHES, content=json.dumps(dict(reversed(body.items())), indent=3), headers=JSON)
    assert second.json()[0]["id"] == first.json()[0]["id"]
    assert (first.json()[0]["created"], second.json()[0]["created"]) == (True, False)
    assert ("Idempotent-Replayed" in first.headers, second.headers["Idempotent-Replayed"]) == (False, "true")
    clock.now += 100
    assert http.post(BATCHES, json=body).json()[0]["id"] != first.json()[0]["id"]


def test_other_callers_and_other_bodies_are_not_repeats(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    body = lsi_body(clock)
    http.post(BATCHES, json=body)
    http.post(BATCHES, json=body | {"priority": 1})
    http.post(BATCHES, json=body, headers={"Authorization": f"Bearer {BOB}"})
    assert len(backend.batches) == 3


def test_an_array_with_two_alike_makes_two_and_repeats_as_a_whole(
    http: TestClient, clock: Clock, backend: FakeBackend
) -> None:
    two = [lsi_body(clock)] * 2
    first, second = http.post(BATCHES, json=two), http.post(BATCHES, json=two)
    assert [b["id"] for b in first.json()] == [b["id"] for b in second.json()]
    assert second.headers["Idempotent-Replayed"] == "true"
    assert len(backend.batches) == 2


@pytest.mark.parametrize("many", [False, True])
def test_a_key_holds_for_ever_and_for_one_body(http: TestClient, clock: Clock, many: bool) -> None:
    key = {"Idempotency-Key": "order-66"}
    one = lsi_body(clock, completion_window="1h")
    body = [one, one | {"priority": 1}] if many else one
    first = http.post(BATCHES, json=body, headers=key).json()
    clock.now += 86_400
    assert [b["id"] for b in http.post(BATCHES, json=body, headers=key).json()] == [b["id"] for b in first]
    other = http.post(BATCHES, json=one | {"priority": 7}, headers=key)
    if not many:
        assert (other.status_code, other.json()["type"]) == (422, "idempotency_error")
    assert http.post(BATCHES, json=body, headers={"Idempotency-Key": "a b"}).status_code == 400


def test_unknown_paths_and_methods_have_the_body_of_their_surface(http: TestClient) -> None:
    assert http.get("/v1/nothing").json()["error"]["code"] == "not_found"
    assert http.get("/v1/inference/nothing").json()["type"] == "not_found"
    answer = http.delete(BATCHES)
    assert (answer.status_code, "details" in answer.json()) == (405, True)
    assert answer.headers["Allow"] == "GET, POST"
    for path in ("/v1/batches/..%2f..%2fetc", "/v1/batches/a%00b", "/v1/batches/" + "x" * 200):
        assert http.get(path).status_code == 404


def test_what_nobody_expected_is_logged_without_secrets_and_answered_without_details(
    http: TestClient, backend: FakeBackend, caplog: pytest.LogCaptureFixture
) -> None:
    backend.fail_with = LedgerError("no_such_code", f"unheard of {signed(0, 1)}")
    backend.fails = 1
    with caplog.at_level(logging.ERROR):
        answer = http.get(f"{BATCHES}/batch_1")
    backend.fail_with, backend.fails = RuntimeError(f"a bug near {signed(0, 1)}"), 1
    with caplog.at_level(logging.ERROR):
        bug = http.get("/v1/batches/batch_1")
    assert (answer.status_code, bug.status_code) == (500, 500)
    assert "unheard" not in answer.text
    assert "bug near" not in bug.text
    assert "no_such_code" in caplog.text
    assert "RuntimeError" in caplog.text
    assert SECRET not in caplog.text


def test_results_resume_where_they_ended(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    [batch] = http.post(BATCHES, json=lsi_body(clock)).json()
    path = f"{BATCHES}/{batch['id']}/results"
    assert [json.loads(line) for line in http.get(path).text.splitlines()] == [
        {"object": "results.end", "next_after": None, "complete": False}
    ]
    backend.rows[batch["id"]] = [
        Result(i, "error" if i == 3 else "output", b'{"custom_id":"%d"}' % i) for i in range(5000)
    ]
    answer = http.get(path, params={"limit": 4})
    *lines, end = [json.loads(line) for line in answer.text.splitlines()]
    assert answer.headers["Content-Type"] == "application/x-ndjson"
    assert lines[3] == {"row": 3, "kind": "error", "line": {"custom_id": "3"}}
    assert end == {"object": "results.end", "next_after": 3, "complete": False}
    backend.move(batch["id"], BatchStatus.COMPLETED)
    *lines, end = [json.loads(line) for line in http.get(path, params={"after": 3}).text.splitlines()]
    assert [line["row"] for line in lines] == list(range(4, 5000))
    assert end == {"object": "results.end", "next_after": 4999, "complete": True}
    *lines, end = [json.loads(line) for line in http.get(path, params={"limit": 2}).text.splitlines()]
    assert end == {"object": "results.end", "next_after": 1, "complete": False}


def test_results_that_break_off_are_seen_to_be_broken(
    served: str, clock: Clock, http: TestClient, backend: FakeBackend
) -> None:
    [batch] = http.post(BATCHES, json=lsi_body(clock)).json()

    async def results(*_: object) -> AsyncIterator[Result]:
        for row in range(3000):
            yield Result(row, "output", b'{"custom_id":"some padding to fill chunks"}')
        raise ServiceError("unavailable", "the ledger went away")

    backend.results = results  # type: ignore[method-assign,assignment]
    headers = {"Authorization": f"Bearer {ALICE}"}
    with pytest.raises(httpx.RemoteProtocolError):
        httpx.get(f"{served}{BATCHES}/{batch['id']}/results", headers=headers)


def upload(http: httpx.Client, content: bytes) -> httpx.Response:
    return http.post("/v1/files", files={"file": ("in.tar", content)}, data={"purpose": "batch"})


def form(*parts: bytes, boundary: bytes = b"b0", close: bool = True) -> bytes:
    return b"".join(b"--%s\r\n%s\r\n" % (boundary, part) for part in parts) + (
        b"--%s--\r\n" % boundary if close else b""
    )


def part(name: bytes, content: bytes, filename: bytes | None = None) -> bytes:
    more = b"" if filename is None else b'; filename="%s"' % filename
    return b'Content-Disposition: form-data; name="%s"%s\r\n\r\n%s' % (name, more, content)


def send(http: TestClient, body: bytes, pieces: int = 1) -> httpx.Response:
    size = max(1, -(-len(body) // pieces))
    content = (body[i : i + size] for i in range(0, len(body), size))
    return http.post("/v1/files", content=content, headers={"Content-Type": "multipart/form-data; boundary=b0"})


@pytest.mark.parametrize("seed", range(5))
def test_uploads_in_any_pieces_and_any_order(http: TestClient, backend: FakeBackend, seed: int) -> None:
    rng = random.Random(seed)
    content = rng.randbytes(5000) + b"\r\n--b" + rng.randbytes(500) + b"\r\n--b0x"
    parts = [part(b"purpose", b"batch"), part(b"file", content, b"a/b\\in.tar")]
    parts += [part(b"expires_after[anchor]", b"created_at"), part(b"expires_after[seconds]", b"7200")]
    rng.shuffle(parts)
    answer = send(http, form(*parts), pieces=rng.choice([1, 7, 500, 5000]))
    assert answer.status_code == 200, f"seed {seed}"
    made = answer.json()
    assert (made["filename"], made["bytes"], made["expires_at"] - made["created_at"]) == ("in.tar", len(content), 7200)
    assert backend.stored[made["id"]][2] == content, f"seed {seed}"


def test_a_large_upload_streams_through(served: str, backend: FakeBackend) -> None:
    content = random.Random(1).randbytes(5_000_000)
    with httpx.Client(base_url=served, headers={"Authorization": f"Bearer {ALICE}"}) as http:
        assert upload(http, content).status_code == 200
    assert max(backend.chunk_sizes) < 500_000


@pytest.mark.parametrize(
    ("body", "code"),
    [
        (form(part(b"file", b"x", b"x")), "missing_required_parameter"),
        (form(part(b"purpose", b"batch")), "missing_required_parameter"),
        (form(part(b"purpose", b"vision"), part(b"file", b"x", b"x")), "invalid_value"),
        (form(part(b"file", b"x", b"x"), part(b"purpose", b"fine-tune")), "invalid_value"),
        (form(part(b"purpose", b"batch"), part(b"file", b"", b"x")), "empty_file"),
        (form(part(b"purpose", b"batch"), part(b"file", b"x", b"x"), close=False), "upload_incomplete"),
        (form(part(b"purpose", b"batch"), part(b"file", b"x", b"x"), part(b"file", b"y", b"y")), "invalid_multipart"),
        (form(part(b"porpoise", b"batch"), part(b"file", b"x", b"x")), "unknown_field"),
        (form(part(b"purpose", b"b" * 2000), part(b"file", b"x", b"x")), "invalid_multipart"),
        (
            form(part(b"purpose", b"batch"), part(b"expires_after[seconds]", b"7200"), part(b"file", b"x")),
            "invalid_value",
        ),
        (b"not a form at all", "invalid_multipart"),
        (form(b"X-Long: " + b"y" * 9000 + b"\r\n\r\nz"), "invalid_multipart"),
        (b"", "missing_required_parameter"),
    ],
)
def test_uploads_that_are_wrong_leave_nothing(http: TestClient, backend: FakeBackend, body: bytes, code: str) -> None:
    answer = send(http, body)
    assert (answer.status_code, answer.json()["error"]["code"]) == (400, code)
    assert backend.stored == {}


def test_an_upload_over_the_limit_ends_early(backend: FakeBackend, clock: Clock) -> None:
    app = create_app(backend, ApiSettings(max_file_bytes=2000), clock=clock)
    http = TestClient(app, headers={"Authorization": f"Bearer {ALICE}"})
    answer = send(http, form(part(b"purpose", b"batch"), part(b"file", b"x" * 5000, b"x")), pieces=50)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "file_too_large")
    assert len(backend.chunk_sizes) < 30
    backend.chunk_sizes.clear()
    assert upload(http, b"x" * 100_000).status_code == 413
    assert (backend.chunk_sizes, backend.stored) == ([], {})  # its Content-Length was enough


def test_an_upload_must_be_a_form(http: TestClient) -> None:
    assert http.post("/v1/files", json={}).status_code == 415


def test_a_body_that_never_comes_ends_with_408(backend: FakeBackend) -> None:
    app = create_app(backend, ApiSettings(body_timeout_s=0.05))
    for path, kind in ((BATCHES, "application/json"), ("/v1/files", "multipart/form-data; boundary=b0")):
        assert anyio.run(_stalled, app, path, kind) == 408


async def _stalled(app: FastAPI, path: str, kind: str) -> int:
    sent = []

    async def receive() -> dict[str, object]:
        await anyio.sleep_forever()
        raise AssertionError

    async def send(message: dict[str, object]) -> None:
        sent.append(message)

    headers = [(b"authorization", b"Bearer " + ALICE.encode()), (b"content-type", kind.encode())]
    scope = {"type": "http", "method": "POST", "path": path, "headers": headers, "query_string": b"", "app": app}
    await app(scope, receive, send)  # type: ignore[arg-type]
    return int(sent[0]["status"])  # type: ignore[call-overload]
