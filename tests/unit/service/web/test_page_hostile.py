"""What somebody may send to the page to make it fail, signed in or not: it answers, and never with a 500."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from page_client import Browser

WORDS = [
    "\0", "\r\nSet-Cookie: a=b", "<script>alert(1)</script>", "{{7*7}}", "{% raw %}", "9" * 5000, "-" + "9" * 30,
    "../../etc/passwd", "..%2f..%2f", "%ff", "\u202e", "x" * 5000, "javascript:alert(1)", "//evil.example/", "nan",
    "https://host/x?Expires=nan&Signature=a", "https://host/x?X-Amz-Date=00010101T000000Z&X-Amz-Expires=-9",
]  # fmt: skip
FIELDS = ("input_file_uri", "output_file_uri", "endpoint", "model_id", "completion_window", "priority", "failed_only")
FORMS = ["submit", "batches/{}/cancel", "batches/{}/archive", "batches/{}/change", "batches/{}/retry"]
RAW = [b"csrf=%ed%a0%80", b"csrf=" + b"a" * 5000, b"&" * 5000, b"=" * 5000, b"\xff\xfe", b"token=%00", b""]
GOOD = {
    "input_file_uri": "https://host/in?X-Amz-Signature=a",
    "output_file_uri": "https://host/out?X-Amz-Signature=a",
    "endpoint": "/v1/chat/completions",
    "model_id": "m",
    "completion_window": "24h",
}


@pytest.mark.parametrize("form", FORMS)
def test_no_field_of_a_form_makes_the_page_fail(alice: Browser, batch_id: str, form: str) -> None:
    path, csrf = f"/ui/{form.format(batch_id)}", alice.csrf()
    for field in FIELDS:
        for word in WORDS:
            answer = alice.http.post(path, data={"csrf": csrf, **GOOD, field: word})
            assert answer.status_code < 500, (field, word, answer.text)
            assert "<script>alert" not in answer.text
            assert "set-cookie" not in answer.headers


@pytest.mark.parametrize("form", [*FORMS, "sign-in", "sign-out", "upload"])
def test_no_body_makes_the_page_fail(alice: Browser, batch_id: str, form: str) -> None:
    for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=b", "application/json"):
        for body in RAW:
            answer = alice.http.post(f"/ui/{form.format(batch_id)}", content=body, headers={"Content-Type": kind})
            assert answer.status_code < 500, (kind, body[:60], answer.text)


def test_no_path_or_query_makes_the_page_fail(alice: Browser, stranger: Browser, batch_id: str) -> None:
    for word in WORDS:
        for path in (
            *("/?after={}", "/?status={}", "/ui/sign-in?next={}", "/ui/batches/{}", "/ui/files/{}", "/ui/static/{}"),
            *(f"/ui/batches/{batch_id}{rest}" for rest in ("/media/{}/0", "/media/0/{}", "/live?after={}", "?x={}")),
        ):
            for browser in (alice, stranger):
                answer = browser.get(path.format(quote(word[:2000], safe="")))
                assert answer.status_code < 500, (path, word[:60], answer.text)
                assert "<script>alert" not in answer.text
                assert not answer.headers.get("location", "/").startswith(("//", "http", "javascript"))


@pytest.mark.parametrize(
    "cookie", ["lsi=" + "x" * 90, "lsi=\u00ff", "lsi=", "=;=;;", "lsi=a; lsi=b", "lsi=" + "%00" * 9]
)
def test_no_cookie_makes_the_page_fail(stranger: Browser, cookie: str) -> None:
    for path in ("/", "/ui/submit", "/ui/sign-in"):
        assert stranger.get(path, headers={"Cookie": cookie.encode("latin-1")}).status_code < 500
