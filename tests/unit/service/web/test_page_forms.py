"""Forms do what the API does, by the same way, and tell in the page what was wrong."""

from __future__ import annotations

import hashlib

import pytest
from api_requests import Clock, signed
from fake_backend import MODEL, FakeBackend
from page_client import Browser, Page

from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Patch, Retry, ServiceError

CHAT = "/v1/chat/completions"
WEEK_S = 8 * 86_400


def alert(page: Page) -> str:
    [one] = [one for one in page.elements if one.attributes.get("role") == "alert"]
    return " ".join(one.text.split())


def urls(clock: Clock) -> dict[str, str]:
    return {
        "input_file_uri": signed(clock.now, WEEK_S),
        "output_file_uri": signed(clock.now, WEEK_S, "out.tar.gz"),
        "endpoint": CHAT,
        "model_id": MODEL,
        "completion_window": "24h",
        "priority": "-3",
    }


def test_urls_are_submitted_once_however_often_one_clicks(alice: Browser, backend: FakeBackend, clock: Clock) -> None:
    answers = [alice.post("/ui/submit", urls(clock)) for _ in range(2)]
    [made] = backend.batches.values()
    assert [answer.status_code for answer in answers] == [303, 303]
    assert [answer.headers["location"] for answer in answers] == [
        f"/ui/batches/{made.id}?said=submitted",
        f"/ui/batches/{made.id}?said=repeated",
    ]
    assert (made.model, made.window, made.priority, made.surface, made.account_id) == (
        MODEL,
        "24h",
        -3,
        "lsi",
        "acct_alice",
    )
    asked = backend.submissions[made.id]
    assert asked.input_url is not None
    assert asked.input_url.reveal() == urls(clock)["input_file_uri"]
    assert "was accepted" in alice.page(answers[0].headers["location"]).text()


@pytest.mark.parametrize(
    ("wrong", "said"),
    [
        ({"completion_window": "7days"}, "7days"),
        ({"completion_window": ""}, "completion_window"),
        ({"completion_window": "99w"}, "is not between"),
        ({"priority": "many"}, "priority"),
        ({"priority": "99999999999999999999"}, "priority"),
        ({"endpoint": "/v1/else"}, "endpoint"),
        ({"input_file_uri": ""}, "input_file_uri"),
        ({"input_file_uri": "http://169.254.169.254/x"}, "input_file_uri"),
        ({"model_id": "none"}, "none"),
        ({"surprise": "x"}, "no such field"),
    ],
)
def test_what_is_wrong_is_said_and_the_rest_stays_filled_in(
    alice: Browser, backend: FakeBackend, clock: Clock, wrong: dict[str, str], said: str
) -> None:
    answer = alice.post("/ui/submit", {**urls(clock), **wrong})
    assert answer.status_code == 400
    page = Page(answer.text)
    assert said in alert(page)
    assert not backend.batches
    filled = [one.attributes.get("value") for one in page.all("input")]
    assert wrong.get("priority", "-3") in filled


def upload(alice: Browser, content: bytes, **fields: str) -> object:
    given = {
        "csrf": alice.csrf(),
        "purpose": "batch",
        "endpoint": CHAT,
        "completion_window": "24h",
        "model_id": "",
        **fields,
    }
    return alice.http.post("/ui/upload", data=given, files={"file": ("my rows.jsonl", content)})


def test_a_file_is_uploaded_and_submitted_once(alice: Browser, backend: FakeBackend) -> None:
    content = b'{"custom_id": "a"}\n' * 5000
    first, again, other = upload(alice, content), upload(alice, content), upload(alice, content + b"\n")
    assert [one.status_code for one in (first, again, other)] == [303] * 3
    assert first.headers["location"].partition("?")[0] == again.headers["location"].partition("?")[0]
    assert len(backend.batches) == 2
    assert {hashlib.sha256(data).digest() for _, _, data in backend.stored.values()} == {
        hashlib.sha256(data).digest() for data in (content, content + b"\n")
    }
    assert len(backend.stored) == 2
    made = next(iter(backend.batches.values()))
    assert (made.surface, made.window) == ("openai", "24h")
    assert backend.stored[made.input_file_id][1].filename == "my rows.jsonl"


def test_nothing_stays_of_an_upload_that_is_refused(alice: Browser, backend: FakeBackend) -> None:
    for wrong, said in (
        ({"completion_window": "soon"}, "soon"),
        ({"priority": "x"}, "priority"),
        ({"model_id": "none"}, "none"),
    ):
        answer = upload(alice, b"{}", **wrong)
        assert answer.status_code == 400
        assert said in alert(Page(answer.text))
    assert not backend.stored
    assert not backend.batches
    assert upload(alice, b"").status_code == 400
    assert not backend.stored


def test_wrong_fields_are_refused_before_the_file_is_read(alice: Browser, backend: FakeBackend) -> None:
    upload(alice, b"a" * 500_000, completion_window="soon")
    assert not backend.chunk_sizes


def test_cancelling(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    answer = alice.post(f"/ui/batches/{batch_id}/cancel")
    assert (answer.status_code, answer.headers["location"]) == (303, f"/ui/batches/{batch_id}?said=cancelled")
    assert backend.batches[batch_id].status == BatchStatus.CANCELLING
    backend.move(batch_id, BatchStatus.CANCELLED)
    late = alice.post(f"/ui/batches/{batch_id}/cancel")
    assert late.status_code == 409
    assert "cancelled already" in alert(Page(late.text))


def test_changing(alice: Browser, backend: FakeBackend, batch_id: str, clock: Clock) -> None:
    url = signed(clock.now, WEEK_S, "other.tar.gz")
    fields = {"completion_window": "2d", "priority": "7", "output_file_uri": url, "input_file_uri": " "}
    assert alice.post(f"/ui/batches/{batch_id}/change", fields).status_code == 303
    [patch] = backend.changes
    assert isinstance(patch, Patch)
    assert (patch.window, patch.priority, patch.input_url) == ("2d", 7, None)
    assert patch.output_url is not None
    assert patch.output_url.reveal() == url
    nothing = alice.post(f"/ui/batches/{batch_id}/change", {"completion_window": ""})
    assert nothing.status_code == 400
    assert "Nothing to change" in alert(Page(nothing.text))


@pytest.mark.parametrize("only", [True, False])
def test_retrying(alice: Browser, backend: FakeBackend, batch_id: str, only: bool) -> None:
    early = alice.post(f"/ui/batches/{batch_id}/retry")
    assert early.status_code == 409
    backend.move(batch_id, BatchStatus.FAILED)
    fields = {"failed_only": "on"} if only else {}
    answer = alice.post(f"/ui/batches/{batch_id}/retry", {**fields, "completion_window": "3d"})
    new = answer.headers["location"].partition("?")[0].rpartition("/")[2]
    assert backend.batches[new].retry_of == batch_id
    [retry] = backend.changes
    assert isinstance(retry, Retry)
    assert (retry.failed_only, retry.window, retry.window_s) == (only, "3d", 3 * 86_400.0)


def test_archiving(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    backend.move(batch_id, BatchStatus.COMPLETED)
    assert alice.post(f"/ui/batches/{batch_id}/archive").status_code == 303
    assert batch_id not in alice.get("/").text
    assert not [one for one in alice.page(f"/ui/batches/{batch_id}").all("button") if "Archive" in one.text]


def test_what_the_service_refuses_is_said_with_its_reason(
    alice: Browser, backend: FakeBackend, batch_id: str, clock: Clock
) -> None:
    backend.fail_with, backend.fails = ServiceError("no_capacity", "6h would do", retry_after_s=60), 1
    answer = alice.post("/ui/submit", urls(clock) | {"priority": "1"})
    assert answer.status_code == 429
    assert "6h would do" in alert(Page(answer.text))
    assert batch_id in backend.batches


def test_the_form_offers_what_is_served(alice: Browser) -> None:
    options = [one.attributes.get("value") for one in alice.page("/ui/submit").all("option")]
    assert MODEL in options
    assert "old" not in options


@pytest.mark.parametrize("body", [b"\xff=\xff", b"a&b&c", b"x=1&" * 100, b"", b'{"csrf": "x"}'])
@pytest.mark.parametrize("kind", ["application/x-www-form-urlencoded", "application/json", "text/plain", ""])
def test_what_is_no_form_of_ours_is_refused(alice: Browser, batch_id: str, body: bytes, kind: str) -> None:
    headers = {"Content-Type": kind} if kind else {}
    for path in (f"/ui/batches/{batch_id}/cancel", "/ui/sign-out", "/ui/submit"):
        answer = alice.http.post(path, content=body, headers=headers)
        assert answer.status_code in (400, 403, 415), answer.text
    assert alice.http.post("/ui/upload", content=body, headers=headers).status_code == 415
