"""Who sees pages: sign-ins, their cookies and ends, forms of other sites, other callers."""

from __future__ import annotations

import re
from urllib.parse import urlencode

import pytest
from api_requests import Clock
from fake_backend import ALICE, FakeBackend
from fastapi import FastAPI
from fastapi.testclient import TestClient
from page_client import Browser, Page

from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.api.settings import ApiSettings

READ = ["/", "/ui/live", "/ui/submit", "/ui/cluster", "/ui/cluster/live"]
OF_BATCH = ["", "/live", "/results.jsonl", "/media/0/0"]
CHANGES = ["cancel", "retry", "change", "archive"]


def test_a_token_opens_the_pages_and_is_in_no_cookie(stranger: Browser) -> None:
    refused = stranger.get("/ui/cluster")
    assert refused.status_code == 401
    form = Page(refused.text)
    [wanted] = [one for one in form.all("input") if one.attributes["name"] == "next"]
    answer = stranger.http.post("/ui/sign-in", data={"token": ALICE, "next": wanted.attributes["value"]})
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/cluster")
    cookie = answer.headers["set-cookie"]
    assert re.fullmatch(r"lsi=[\w-]{20,}; HttpOnly; Max-Age=43200; Path=/; SameSite=strict", cookie)
    assert ALICE not in cookie
    assert "Cluster" in stranger.page("/ui/cluster").text()


def test_over_tls_the_cookie_is_secure_and_bound_to_the_host(app: FastAPI) -> None:
    for over in ({"base_url": "https://lsi.example"}, {"headers": {"X-Forwarded-Proto": "https"}}):
        http = TestClient(app, follow_redirects=False, **over)  # type: ignore[arg-type]
        cookie = http.post("/ui/sign-in", data={"token": ALICE}).headers["set-cookie"]
        assert cookie.startswith("__Host-lsi=")
        assert "Secure" in cookie
    http = TestClient(app, base_url="https://lsi.example")
    http.post("/ui/sign-in", data={"token": ALICE})
    assert http.get("/").status_code == 200
    fresh = TestClient(app, base_url="https://lsi.example", headers={"Cookie": f"lsi={http.cookies['__Host-lsi']}"})
    assert fresh.get("/").status_code == 401


@pytest.mark.parametrize("token", ["", "nonsense", "lsi-0-nobody", "a" * 5000, "\x00", "a b"])
def test_who_has_no_token_stays_outside(stranger: Browser, token: str) -> None:
    answer = stranger.http.post("/ui/sign-in", data={"token": token})
    assert answer.status_code in (401, 413)
    assert "set-cookie" not in answer.headers
    assert token not in answer.text or not token.strip("\x00")
    assert stranger.get("/").status_code == 401


@pytest.mark.parametrize(
    "wanted",
    ["https://evil.example/", "//evil.example", "/\\evil.example", "/ui/files/x", "javascript:alert(1)", "/v1/batches"],
)
def test_signing_in_leads_to_our_own_pages_alone(stranger: Browser, wanted: str) -> None:
    shown = stranger.get("/ui/sign-in?" + urlencode({"next": wanted}))
    assert wanted not in shown.text
    answer = stranger.http.post("/ui/sign-in", data={"token": ALICE, "next": wanted})
    assert (answer.status_code, answer.headers["location"]) == (303, "/")


def test_a_form_that_came_too_late_leads_back_to_its_page(stranger: Browser) -> None:
    refused = stranger.http.post("/ui/batches/batch_1/cancel", data={"csrf": "x"})
    assert refused.status_code == 401
    assert 'value="/ui/batches/batch_1"' in refused.text


def test_signing_out_ends_it_everywhere(alice: Browser, app: FastAPI) -> None:
    cookie = alice.http.cookies["lsi"]
    answer = alice.post("/ui/sign-out")
    assert (answer.status_code, answer.headers["location"]) == (303, "/ui/sign-in")
    assert "Max-Age=0" in answer.headers["set-cookie"]
    assert TestClient(app, cookies={"lsi": cookie}).get("/").status_code == 401


def test_cookies_are_for_pages_and_tokens_for_the_api(alice: Browser, app: FastAPI) -> None:
    assert alice.get("/v1/batches").status_code == 401
    bearer = TestClient(app, headers={"Authorization": f"Bearer {ALICE}"})
    assert bearer.get("/").status_code == 401
    cookie = alice.http.cookies["lsi"]
    assert TestClient(app, headers={"Authorization": f"Bearer {cookie}"}).get("/v1/batches").status_code == 401


@pytest.mark.parametrize("path", READ + [f"/ui/batches/batch_0001{end}" for end in OF_BATCH] + ["/ui/files/file-1"])
def test_nothing_is_shown_to_strangers(stranger: Browser, batch_id: str, path: str) -> None:
    answer = stranger.get(path)
    assert answer.status_code == 401
    assert "Sign in" in answer.text
    assert batch_id not in answer.text.replace(path, "").replace(f"/ui/batches/{batch_id}", "")


@pytest.mark.parametrize("end", OF_BATCH)
def test_others_batches_are_not_there(alice: Browser, bob: Browser, batch_id: str, end: str) -> None:
    mine, others, none = (
        one.get(f"/ui/batches/{name}{end}") for one, name in ((alice, batch_id), (bob, batch_id), (bob, "batch_0999"))
    )
    assert mine.status_code == (404 if "media" in end else 200)
    assert (others.status_code, none.status_code) == (404, 404)
    assert others.text.replace(batch_id, "batch_0999") == none.text
    assert batch_id not in bob.get("/").text
    assert batch_id in alice.get("/").text


@pytest.mark.parametrize("change", CHANGES)
def test_others_batches_are_not_changed(bob: Browser, backend: FakeBackend, batch_id: str, change: str) -> None:
    before = backend.batches[batch_id]
    assert bob.post(f"/ui/batches/{batch_id}/{change}", {"priority": "3"}).status_code == 404
    assert backend.batches[batch_id] == before
    assert len(backend.batches) == 1


def test_others_files_are_not_there(alice: Browser, bob: Browser, backend: FakeBackend) -> None:
    file = backend.keep("acct_alice", "out.jsonl", b"{}\n", "batch_output")
    assert alice.get(f"/ui/files/{file.id}").content == b"{}\n"
    assert bob.get(f"/ui/files/{file.id}").status_code == 404


@pytest.mark.parametrize("path", [*(f"/ui/batches/batch_0001/{change}" for change in CHANGES), "/ui/submit"])
@pytest.mark.parametrize(
    ("token", "headers"),
    [
        ("", {}),
        ("0" * 64, {}),
        ("é", {}),
        (None, {"Sec-Fetch-Site": "cross-site"}),
        (None, {"Sec-Fetch-Site": "same-site"}),
        (None, {"Origin": "https://evil.example"}),
        (None, {"Origin": "null"}),
    ],
)
def test_forms_of_other_sites_do_nothing(
    alice: Browser, backend: FakeBackend, batch_id: str, path: str, token: str | None, headers: dict[str, str]
) -> None:
    before = backend.batches[batch_id]
    given = alice.csrf() if token is None else token
    answer = alice.http.post(path, data={"csrf": given, "priority": "5"}, headers=headers)
    assert answer.status_code == 403
    assert backend.batches == {batch_id: before}
    assert not backend.changes


def test_the_token_of_another_sign_in_is_none(alice: Browser, bob: Browser, batch_id: str) -> None:
    answer = alice.http.post(f"/ui/batches/{batch_id}/cancel", data={"csrf": bob.csrf()})
    assert answer.status_code == 403


def test_an_upload_without_its_token_first_is_not_kept(alice: Browser, backend: FakeBackend) -> None:
    fields = {"purpose": "batch", "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    for csrf in ({}, {"csrf": "0" * 64}):
        answer = alice.http.post("/ui/upload", data={**csrf, **fields}, files={"file": ("a.jsonl", b"{}")})
        assert answer.status_code == 403
    file = b'--b\r\nContent-Disposition: form-data; name="file"; filename="a"\r\n\r\nabc\r\n'
    late = b'--b\r\nContent-Disposition: form-data; name="csrf"\r\n\r\n' + alice.csrf().encode() + b"\r\n--b--"
    kind = {"Content-Type": "multipart/form-data; boundary=b"}
    assert alice.http.post("/ui/upload", content=file + late, headers=kind).status_code in (400, 403)
    assert not backend.stored
    assert not backend.batches


def test_signing_in_from_another_site_is_refused(stranger: Browser) -> None:
    """Or one could make somebody work, unknowingly, in one's own account."""
    for headers in ({"Sec-Fetch-Site": "cross-site"}, {"Origin": "https://evil.example"}):
        answer = stranger.http.post("/ui/sign-in", data={"token": ALICE}, headers=headers)
        assert answer.status_code == 403
        assert "set-cookie" not in answer.headers
    own = {"Origin": "http://testserver"}
    assert stranger.http.post("/ui/sign-in", data={"token": ALICE}, headers=own).status_code == 303


def test_who_may_read_only_sees_no_forms_and_changes_nothing(reader: Browser, batch_id: str) -> None:
    page = reader.page(f"/ui/batches/{batch_id}")
    assert {one.attributes["action"] for one in page.all("form")} == {"/ui/sign-out"}
    assert not [one for one in reader.page("/ui/submit").all("form") if one.attributes["action"] != "/ui/sign-out"]
    assert reader.post(f"/ui/batches/{batch_id}/cancel").status_code == 403
    assert reader.post("/ui/submit").status_code == 403


def test_pages_and_forms_have_the_limits_of_the_api(clock: Clock, batch_id: str, backend: FakeBackend) -> None:
    backend.limiter = RateLimiter(ApiSettings().rates, clock)
    app = create_app(backend, ApiSettings(max_body_bytes=2048), clock=clock, steady_clock=clock)
    http = TestClient(app, follow_redirects=False)
    assert http.post("/ui/sign-in", data={"token": ALICE}).status_code == 303
    assert http.post(f"/ui/batches/{batch_id}/cancel", content=b"a" * 3000).status_code == 413
    forms = [http.post(f"/ui/batches/{batch_id}/cancel", data={"csrf": ""}) for _ in range(60)]
    assert [answer.status_code for answer in forms[-5:]] == [429] * 5
    assert forms[-1].headers["Retry-After"] == "1"
    assert http.post("/ui/sign-in", data={"token": ALICE}).status_code == 429
    reads = [http.get("/").status_code for _ in range(210)]
    assert reads[-1] == 429
    assert reads.count(200) == 200


def test_a_stranger_brings_no_more_than_a_token_needs(stranger: Browser) -> None:
    assert stranger.http.post("/ui/sign-in", content=b"a" * 5000).status_code == 413
    assert stranger.http.post("/ui/static/page.css", content=b"").status_code == 405
