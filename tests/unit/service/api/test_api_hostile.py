"""What a caller with a valid token may send to make the service fail: it answers, and never with a 500."""

from __future__ import annotations

import json
from typing import Any

import pytest
from api_requests import Clock, lsi_body
from fastapi.testclient import TestClient

SURROGATE = "\ud800"
PLACES = [
    "/v1/inference/batches",
    "/v1/batches",
    "/v1/inference/batches/batch_x/retry",
    "/v1/inference/batches/batch_x/cancel",
    "/v1/batches/batch_x/cancel",
]
URLS = [
    f"https://{SURROGATE}/",
    f"https://host/{SURROGATE}?X-Amz-Signature=a",
    "https://host\n/x",
    *(
        f"https://host/x?X-Amz-Date={date}&X-Amz-Expires={seconds}"
        for date in ("20260101T000000Z", "00010101T000000Z", "99991231T235959Z", "99999999T999999Z")
        for seconds in ("9" * 400, "-9", "-1e18", "1e308", "nan", "inf", "-inf", "\u0661")
    ),
    *(f"https://host/x?Expires={ends}&Signature=a" for ends in ("nan", "inf", "-inf", "1e999", "-1", "9" * 4500)),
    "https://host/x?se=99999-99-99&sig=a",
    "https://host/x?se=0001-01-01&sig=a",
    "https://host:99999/x",
    "https://[::1%25eth0]/x",
    "https://" + "a." * 3000,
]


def bodies() -> list[Any]:
    good = lsi_body(Clock())
    changes: list[dict[str, Any]] = [
        {SURROGATE: 1},
        {"metadata": {SURROGATE: "a"}},
        {"metadata": {"a": SURROGATE}},
        {"metadata": {"a": "\0\r\n"}},
        {"model_id": SURROGATE},
        {"model_id": "\0"},
        {"completion_window": "9" * 3000 + "d"},
        {"completion_window": "\u0661d"},
        {"completion_window": SURROGATE},
        {"priority": 10**300},
        {"priority": True},
        {"price": {"a": [[[[[SURROGATE]]]]]}},
        {"webhook": {"url": "https://host/", "secret": SURROGATE * 20}},
        {"webhook": {"url": "https://host/", "secret": "whsec_" + "\u00e9" * 20}},
        *({field: url} for url in URLS for field in ("input_file_uri", "output_file_uri")),
        *({"webhook": {"url": url, "secret": "s" * 20}} for url in URLS),
    ]
    alone: list[Any] = [{SURROGATE: 1}, [], [SURROGATE], [[good]], None, "x", 1]
    return [{**good, **change} for change in changes] + alone + [[{**good, **change}] for change in changes[:8]]


RAW = [
    b"[" * 60_000,
    b'{"a":' * 12_000,
    b"1" * 6_000,
    b'{"priority":' + b"9" * 5_000 + b"}",
    b"{" + b'"a":1,' * 8_000 + b'"a":1}',
    b'"' + b"\\ud800" * 9_000 + b'"',
    b'{"a":"\xed\xa0\x80"}',
    b'{"a":NaN}',
    b"\xef\xbb\xbf{}",
    b"\xff\xfe",
    b"\0",
    b"-",
]
TYPES = ["application/json", "application/json; charset=utf-16", "text/plain", "multipart/form-data"]
QUERIES = [
    *("limit=0", "limit=-1", "limit=" + "9" * 5_000, "limit=1e3", "limit=\u0661", "limit=1&limit=2", "order=x"),
    *("after=%00", "after=%ed%a0%80", "after=%ff", "after=" + "x" * 7_000, "after=-1", "after=" + "9" * 30),
    *("status=%00", "purpose=%ff", "metadata[x]=%ff", "created_after=9e999", "created_after=99999-01-01"),
]
READS = [
    *("/v1/inference/batches", "/v1/batches", "/v1/files", "/v1/inference/models", "/v1/inference/health"),
    *("/v1/batches/batch_x", "/v1/inference/batches/batch_x/results", "/v1/files/file-x/content"),
    *("/v1/batches/%00", "/v1/batches/%ff", "/v1/files/..%2f..%2fetc%2fpasswd", "/v1/inference/batches/%ed%a0%80"),
]


@pytest.mark.parametrize("path", PLACES)
def test_no_body_makes_the_service_fail(http: TestClient, path: str) -> None:
    sent = [(json.dumps(body).encode(), TYPES[0]) for body in bodies()]
    for data, kind in sent + [(data, kind) for data in RAW for kind in TYPES]:
        answer = http.post(path, content=data, headers={"Content-Type": kind})
        assert answer.status_code < 500, (data[:400], kind, answer.text)
        assert "\n" not in answer.text


@pytest.mark.parametrize("path", READS)
def test_no_query_makes_the_service_fail(http: TestClient, path: str) -> None:
    for query in QUERIES:
        answer = http.get(f"{path}?{query}")
        assert answer.status_code < 500, (query, answer.text)
