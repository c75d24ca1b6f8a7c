"""What pages show, whatever it is that they have to show: progress, chart, errors, rows; and that it is only text."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest
from api_requests import SECRET, Clock
from fake_backend import ALICE, MODEL, FakeBackend
from fastapi import FastAPI
from page_client import Browser, Page

from lsi_ray.errors import Finding
from lsi_ray.ledger.service_records import Moment
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Counts, ErrorCount, Eta, Result, ServiceError, Speed, Usage, Waiting
from lsi_ray.service.page_views import ClusterView, ModelLoad, NodeView, ReplicaView, SampleRow

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "'); alert(1); ('",
    "{{ 7 * 7 }} {% raw %}",
    "</textarea></svg></bdi><style>*{display:none}</style>",
    "javascript:alert(1)",
    "\u202egnp.exe \u0000 \ud7ff",
    "<!-- " + "x" * 3000,
]
PAGES = ["/", "/ui/live", "/ui/submit", "/ui/cluster", "/ui/cluster/live", "/ui/sign-in"]


def running(backend: FakeBackend, batch_id: str, **changes: object) -> None:
    """Half way, for a minute."""
    begun = backend.clock()
    moved = backend.move(batch_id, BatchStatus.IN_PROGRESS, started=True)
    half = {
        "counts": Counts(1000, 480, 20),
        "usage": Usage(40_000, 10_000, 1_000),
        "speed": Speed(8.3, 833.0),
        "eta": Eta(begun + 120, begun + 300, True),
        "times": {**moved.times, BatchStatus.IN_PROGRESS: begun - 60},
    }
    backend.batches[batch_id] = replace(moved, **{**half, **changes})


@pytest.mark.parametrize("text", HOSTILE)
def test_whatever_users_and_models_write_is_text(
    alice: Browser, backend: FakeBackend, batch_id: str, text: str
) -> None:
    digest = (ErrorCount(text[:40], 20, text, 3, text),)
    warnings, metadata = (text,), {text[:60]: text}
    running(
        *(backend, batch_id),
        **{"error_digest": digest, "warnings": warnings, "metadata": metadata, "model": text},
        waiting=Waiting("engine_failed", text, 0),
        findings=(Finding("invalid_value", text),),
        output=text,
        input=text,
    )
    backend.samples[batch_id] = (
        SampleRow(0, text, False, text, text, 0, ("image",)),
        SampleRow(1, None, True, "", text),
    )
    replica = ReplicaView("failed", text)
    load = ModelLoad(text, text, (replica,), 1, 1, 1, 1, 1.0, text)
    backend.cluster_view = ClusterView((NodeView(1, 1, 1, text),), 1, (load,))
    for path in (*PAGES, f"/ui/batches/{batch_id}", f"/ui/batches/{batch_id}/live"):
        shown = alice.page(path)
        check_plain(shown)
        assert shown.text if path == "/ui/sign-in" else True
    page = alice.page(f"/ui/batches/{batch_id}")
    said = [one.text for one in page.all("bdi")]
    assert any(text.replace("\u0000", "\ufffd") in one.replace("\u0000", "\ufffd") for one in said)


def check_plain(page: Page) -> None:
    """No script but ours, nothing that runs, nothing from elsewhere, no style in the page."""
    assert [one.attributes["src"].partition("?")[0] for one in page.all("script")] in ([], ["/ui/static/page.js"])
    assert not page.all("style")
    for element in page.elements:
        for name, value in element.attributes.items():
            assert not name.startswith("on"), (element.tag, name)
            assert name not in ("style", "srcdoc", "srcset", "formaction")
            if name in ("href", "src", "action", "data-live"):
                assert (value or "").startswith(("/", "#main")), value
                assert not (value or "").startswith("//")


@pytest.mark.parametrize("path", [*PAGES, "/ui/static/page.css", "/ui/static/nothing", "/ui/nothing", "/ui/batches/x"])
def test_every_answer_keeps_browsers_from_what_it_does_not_need(alice: Browser, stranger: Browser, path: str) -> None:
    for one in (alice, stranger):
        check_headers(one.get(path).headers)
    check_headers(alice.http.post(path).headers)


def check_headers(headers: dict[str, str]) -> None:
    policy = dict(part.strip().split(" ", 1) for part in headers["content-security-policy"].split(";"))
    assert policy["default-src"] == "'none'"
    assert {policy[name] for name in ("script-src", "style-src", "img-src", "connect-src", "form-action")} == {"'self'"}
    assert (policy["frame-ancestors"], policy["base-uri"]) == ("'none'", "'none'")
    assert headers["x-frame-options"] == "DENY"
    assert headers["x-content-type-options"] == "nosniff"
    assert headers["referrer-policy"] == "same-origin"
    assert headers["cache-control"] in ("no-store", "public, max-age=86400")


def test_no_signature_is_ever_shown(alice: Browser, backend: FakeBackend, batch_id: str, clock: Clock) -> None:
    from api_requests import signed

    running(backend, batch_id)
    url = signed(clock.now, 60)
    for path, fields in [
        (f"/ui/batches/{batch_id}/change", {"output_file_uri": url, "completion_window": "7d"}),
        (f"/ui/batches/{batch_id}/change", {"output_file_uri": f"ftp://{url}"}),
        ("/ui/submit", {"input_file_uri": url, "output_file_uri": url, "completion_window": "bad"}),
        (
            "/ui/submit",
            {"input_file_uri": f"x{url}", "output_file_uri": url, "endpoint": url, "completion_window": "7d"},
        ),
    ]:
        answer = alice.post(path, fields)
        assert answer.status_code == 400, (path, fields)
        assert 'role="alert"' in answer.text
    for answer in [*alice.seen, alice.get("/"), alice.get(f"/ui/batches/{batch_id}")]:
        assert SECRET not in answer.text
        assert SECRET not in str(answer.headers)


def test_the_list_tells_where_each_batch_is(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    running(backend, batch_id)
    load = ModelLoad(MODEL, "Qwen", (ReplicaView("ready", ""), ReplicaView("ready", "")), 0, 1, 500, 64, 833.0)
    backend.cluster_view = ClusterView((), 0.0, (load,))
    page = alice.page("/")
    [bar] = page.all("progress")
    assert (bar.attributes["value"], bar.attributes["max"]) == ("500", "1000")
    assert bar.attributes["aria-label"]
    text = page.text()
    for part in ("running", "500 of 1,000", "833", "at risk", batch_id, MODEL):
        assert part in text
    [row] = [one for one in page.all("tr") if batch_id in one.text]
    assert " ".join(row.text.split()).count(" 2 ") == 1  # replicas


def test_a_batch_that_waits_says_why(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    waiting = Waiting("queued", "PATCH it with a fresh input_url", 2)
    backend.batches[batch_id] = replace(backend.batches[batch_id], waiting=waiting)
    for path in ("/", f"/ui/batches/{batch_id}"):
        text = alice.page(path).text()
        assert "fresh input_file_uri" in text
        assert "place 3 in the queue" in text


def test_one_batch(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    running(backend, batch_id, error_digest=(ErrorCount("media_invalid", 20, "Line 8: no image", 8, "row-7"),))
    backend.moments[batch_id] = (Moment(backend.clock() - 30, 100, 10_000),)
    rows = (
        SampleRow(0, "a-1", False, "What is this?", "A cat.", 0, ("image",) * 6),
        SampleRow(9, "a-9", True, "", "bad"),
    )
    backend.samples[batch_id] = rows
    page = alice.page(f"/ui/batches/{batch_id}")
    text = page.text()
    for part in (
        "833 tokens/s",
        "8.3 rows/s",
        "media_invalid",
        "row-7",
        "no image",
        "What is this?",
        "A cat.",
        "at risk",
    ):
        assert part in text, part
    pictures = [one.attributes for one in page.all("img")]
    assert [one["src"] for one in pictures] == [f"/ui/batches/{batch_id}/media/0/{number}" for number in range(4)]
    assert all(one["alt"] for one in pictures)
    assert "and 2 more" in text
    # 10,000 tokens in the first half minute, 40,000 in the second
    assert "mean 833, at most 1,333, over 60 s" in text
    assert len(page.all("path")) == 4


def test_a_batch_that_has_ended_shows_how_it_went_and_where_its_results_are(
    alice: Browser, backend: FakeBackend, batch_id: str
) -> None:
    running(backend, batch_id, output_file_id="file-out", error_file_id="file-err", output=None)
    backend.clock.now += 40  # type: ignore[attr-defined]
    backend.move(batch_id, BatchStatus.FINALIZING)
    backend.move(batch_id, BatchStatus.COMPLETED)
    backend.clock.now += 100_000  # type: ignore[attr-defined]
    page = alice.page(f"/ui/batches/{batch_id}")
    text = page.text()
    assert "nothing of yours is kept here" in text
    assert "over 100 s" in text
    links = {one.attributes["href"] for one in page.all("a")}
    assert {"/ui/files/file-out", "/ui/files/file-err"} <= links
    assert {"retry", "archive"} == {
        one.attributes["action"].rpartition("/")[2] for one in page.all("form") if batch_id in one.attributes["action"]
    }
    assert {one.attributes["data-more"] for one in page.elements if "data-more" in one.attributes} == {"no"}


@pytest.mark.parametrize("status", list(BatchStatus))
def test_every_status_has_its_word_and_its_forms(
    alice: Browser, backend: FakeBackend, batch_id: str, status: BatchStatus
) -> None:
    backend.batches[batch_id] = replace(backend.batches[batch_id], status=status, accepted=False)
    for path in ("/", f"/ui/batches/{batch_id}"):
        [mark] = [
            one for one in alice.page(path).all("span") if "status" in (one.attributes.get("class") or "").split()
        ]
        assert re.search(r"[a-z]{4}", mark.text)


def test_results_so_far_are_lines(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    backend.rows[batch_id] = [Result(0, "output", b'{"custom_id": "<b>"}'), Result(1, "error", b'{"custom_id": "c"}')]
    answer = alice.get(f"/ui/batches/{batch_id}/results.jsonl")
    assert answer.content == b'{"custom_id": "<b>"}\n{"custom_id": "c"}\n'
    assert answer.headers["content-type"] == "application/x-ndjson"
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["x-content-type-options"] == "nosniff"


def test_files_are_never_shown_in_the_page(alice: Browser, backend: FakeBackend) -> None:
    file = backend.keep("acct_alice", '<script>".html', b"<script>alert(1)</script>", "batch_output")
    answer = alice.get(f"/ui/files/{file.id}")
    check_headers({**answer.headers})
    assert answer.headers["content-disposition"].startswith("attachment")
    assert answer.headers["content-type"] == "application/octet-stream"


def test_pictures_are_ours(alice: Browser, bob: Browser, backend: FakeBackend, batch_id: str) -> None:
    backend.thumbnails[batch_id, 7, 1] = b"\xff\xd8jpeg"
    answer = alice.get(f"/ui/batches/{batch_id}/media/7/1")
    assert (answer.content, answer.headers["content-type"]) == (b"\xff\xd8jpeg", "image/jpeg")
    assert answer.headers["cache-control"].startswith("private")
    assert bob.get(f"/ui/batches/{batch_id}/media/7/1").status_code == 404
    for path in ("8/1", "7/2", "-1/0", "99999999999/0", "x/0"):
        assert alice.get(f"/ui/batches/{batch_id}/media/{path}").status_code in (400, 404)


def test_there_are_pages_of_batches(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    one = backend.batches[batch_id]
    for number in range(120):
        backend.batches[f"b{number}"] = replace(one, id=f"b{number}")
    seen: list[str] = []
    path = "/"
    for _ in range(3):
        page = alice.page(path)
        seen += [link.text for link in page.all("a") if (link.attributes["href"] or "").startswith("/ui/batches/")]
        older = [link.attributes["href"] for link in page.all("a") if link.text == "Older batches"]
        path = older[0] if older else ""
    assert path == ""
    assert seen == [*(f"b{number}" for number in reversed(range(120))), batch_id]
    assert alice.get("/?after=nonsense").status_code == 404


def test_the_cluster_names_nobody(bob: Browser, backend: FakeBackend, batch_id: str) -> None:
    load = ModelLoad(
        "m", "The Model", (ReplicaView("ready", ""), ReplicaView("loading", "weights")), 2, 3, 4000, 500, 77.0, ""
    )
    backend.cluster_view = ClusterView((NodeView(96, 8, 2e12, "H100"), NodeView(16, 0, 64e9)), 6.0, (load,))
    text = bob.page("/ui/cluster").text()
    for part in ("The Model", "1 ready", "loading: weights", "4,000", "H100", "Nodes: 2; free GPUs: 6", "2 TB"):
        assert part in text, part
    assert batch_id not in text


def test_pages_are_sound_for_keyboards_and_screen_readers(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    running(backend, batch_id, error_digest=(ErrorCount("e", 1, "m", 1, "c"),))
    backend.samples[batch_id] = (SampleRow(0, "a", False, "q", "a", 0, ("image",)),)
    for path in (*PAGES[:1], *PAGES[2:4], f"/ui/batches/{batch_id}"):
        page = alice.page(path)
        ids = [one.attributes["id"] for one in page.elements if "id" in one.attributes]
        assert len(ids) == len(set(ids)), path
        assert [one.attributes["lang"] for one in page.all("html")] == ["en"]
        assert (len(page.all("h1")), len(page.all("main")), len(page.all("header"))) == (1, 1, 1)
        assert all(one.attributes.get("scope") for one in page.all("th"))
        assert len(page.all("caption")) == len(page.all("table"))
        labelled = {one.attributes["for"] for one in page.all("label")}
        for control in [*page.all("input"), *page.all("select")]:
            assert control.attributes.get("type") == "hidden" or control.attributes["id"] in labelled
        for name in ("aria-labelledby", "aria-describedby"):
            for one in page.elements:
                assert set((one.attributes.get(name) or "").split()) <= set(ids)


def test_a_service_that_restarts_says_so_as_a_page(alice: Browser, backend: FakeBackend, batch_id: str) -> None:
    backend.fail_with, backend.fails = ServiceError("unavailable", "the service is being restarted"), 1
    answer = alice.get(f"/ui/batches/{batch_id}")
    assert (answer.status_code, answer.headers["retry-after"]) == (503, "2")
    assert "being restarted" in Page(answer.text).text()
    backend.fail_with, backend.fails = RuntimeError(f"secret {ALICE}"), 1
    answer = alice.get(f"/ui/batches/{batch_id}")
    assert answer.status_code == 500
    assert ALICE not in answer.text


def test_the_api_is_as_it_was(app: FastAPI) -> None:
    assert not [path for path in app.openapi()["paths"] if not path.startswith("/v1")]
