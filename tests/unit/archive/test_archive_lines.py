from __future__ import annotations

import json
import re
from typing import Any

import pytest
from openai.types.chat import ChatCompletion

from lsi_ray.archive import strict_json
from lsi_ray.archive.lines import failure_line, success_line
from lsi_ray.errors import RowError

BODY = {
    "id": "chatcmpl-1",
    "object": "chat.completion",
    "created": 1751329764,
    "model": "m",
    "choices": [{"index": 0, "finish_reason": "stop", "message": {"role": "assistant", "content": "Grüße"}}],
    "usage": {"prompt_tokens": 5, "completion_tokens": 2, "total_tokens": 7},
}
CUSTOM_IDS = [
    "request-1",
    'quote " \\ slash',
    "new\nline\u2028",
    "Grüße 😀 \0",
    "{}",
    "\x7f",
    "lone \ud800 half",
    "\udc00",
]


def keys(line: bytes) -> dict[str, Any]:
    assert b"\n" not in line
    value: dict[str, Any] = strict_json.decode(line)
    assert list(value) == ["id", "custom_id", "response", "error"]
    assert re.fullmatch(r"batch_req_[0-9a-f]{32}", value["id"])
    return value


def test_a_success_has_the_shape_of_the_batch_api() -> None:
    line = keys(success_line("batch_1", 3, "request-1", json.dumps(BODY).encode()))
    request_id = "req_" + line["id"].removeprefix("batch_req_")
    assert line["custom_id"] == "request-1"
    assert line["response"] == {"status_code": 200, "request_id": request_id, "body": BODY}
    assert list(line["response"]) == ["status_code", "request_id", "body"]
    assert line["error"] is None
    assert ChatCompletion.model_validate(line["response"]["body"]).choices[0].message.content == "Grüße"


@pytest.mark.parametrize(("status", "kind"), [(400, "invalid_request_error"), (500, "server_error")])
def test_an_http_failure_has_its_detail_in_the_response(status: int, kind: str) -> None:
    error = RowError("context_length_exceeded", "too long", param="body.messages", status=status)
    line = keys(failure_line("batch_1", 4, "request-5", error, 7))
    assert line["error"] is None
    assert line["response"]["status_code"] == status
    assert line["response"]["request_id"] == "req_" + line["id"].removeprefix("batch_req_")
    detail = {"message": "Line 7: too long", "type": kind, "param": "messages", "code": "context_length_exceeded"}
    assert line["response"]["body"] == {"error": detail}


def test_another_failure_has_no_response() -> None:
    error = RowError("batch_expired", "This request could not be executed before the window expired.", status=None)
    line = keys(failure_line("batch_1", 4, "request-3", error, None))
    assert line["response"] is None
    assert line["error"] == {"code": "batch_expired", "message": error.message}
    assert keys(failure_line("batch_1", 4, "r", error, 9))["error"]["message"].startswith("Line 9: This request")


def test_params_outside_the_body_and_absent_custom_ids() -> None:
    line = keys(failure_line("b", 0, None, RowError("missing_required_parameter", "x", param="custom_id"), 1))
    assert line["custom_id"] is None
    assert line["response"]["body"]["error"]["param"] == "custom_id"
    assert keys(failure_line("b", 0, None, RowError("x", "x"), 1))["response"]["body"]["error"]["param"] is None


@pytest.mark.parametrize("custom_id", CUSTOM_IDS, ids=range(len(CUSTOM_IDS)))
def test_every_line_is_utf8_whatever_the_custom_id(custom_id: str) -> None:
    expected = custom_id.replace("\ud800", "\ufffd").replace("\udc00", "\ufffd")
    assert keys(success_line("b", 0, custom_id, b"{}"))["custom_id"] == expected
    error = RowError("invalid_value", f"got {custom_id}")
    line = keys(failure_line("b", 0, custom_id, error, 1))
    assert line["custom_id"] == expected
    assert line["response"]["body"]["error"]["message"] == f"Line 1: got {expected}"


def test_ids_follow_from_batch_and_row() -> None:
    made = [success_line(batch, row, "same", b"{}") for batch in ("b", "b1") for row in (0, 1, 11)]
    assert len({keys(line)["id"] for line in made}) == 6
    assert made[0] == success_line("b", 0, "same", b"{}")
    failure = failure_line("b", 0, "same", RowError("x", "x"), 1)
    assert keys(failure)["id"] == keys(made[0])["id"]
