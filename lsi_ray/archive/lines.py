"""The final lines of a batch, in the exact shapes of OpenAI's Batch API.

- success: `response` with status 200 and the body, `error` null
- HTTP-like failure (a RowError with a status): `response.status_code` and `response.body.error`, `error` null
- any other failure (without a status): `response` null, `error` with code and message

Keys stand in the order id, custom_id, response, error. Ids follow from the batch and the row, so a line that is made
twice is the same line. Every line is valid UTF-8 without a newline in it, whatever the custom_id.
"""

from __future__ import annotations

import hashlib
import json
from typing import Any

from lsi_ray.errors import RowError


def success_line(batch_id: str, row_index: int, custom_id: str, body_json: bytes) -> bytes:
    """`body_json` is the response body as compact JSON; it is not parsed again."""
    ident = _ident(batch_id, row_index)
    return (
        b'{"id":"batch_req_%b","custom_id":%b,"response":{"status_code":200,"request_id":"req_%b","body":%b},"error":null}'
        % (
            ident,
            _json(custom_id),
            ident,
            body_json,
        )
    )


def failure_line(batch_id: str, row_index: int, custom_id: str | None, error: RowError, line: int | None) -> bytes:
    """`custom_id` is None where it cannot be read. `line` is the 1-based line of jobs.jsonl, put into the message."""
    ident = _ident(batch_id, row_index)
    message = error.message if line is None else f"Line {line}: {error.message}"
    response: dict[str, Any] | None = None
    failure: dict[str, Any] | None = {"code": error.code, "message": message}
    if error.status is not None:
        detail = {
            "message": message,
            "type": "invalid_request_error" if error.status < 500 else "server_error",
            "param": _param(error.param),
            "code": error.code,
        }
        request_id = "req_" + ident.decode()
        response = {"status_code": error.status, "request_id": request_id, "body": {"error": detail}}
        failure = None
    ids = {"id": "batch_req_" + ident.decode(), "custom_id": custom_id}
    return _json(ids | {"response": response, "error": failure})


def answer_id(batch_id: str, row_index: int) -> str:
    """The id of the response body of a row: the same for every attempt."""
    return "resp-" + _ident(batch_id, row_index).decode()


def _ident(batch_id: str, row_index: int) -> bytes:
    """32 hex digits that only this row of this batch has."""
    return hashlib.blake2b(f"{batch_id}/{row_index}".encode(), digest_size=16).hexdigest().encode()


def _param(param: str | None) -> str | None:
    """Inside `response.body.error`, OpenAI names fields from the body on: "messages", not "body.messages"."""
    return None if param is None else param.removeprefix("body.")


def _json(value: Any) -> bytes:
    text = json.dumps(value, ensure_ascii=False, separators=(",", ":"))
    try:
        return text.encode()
    except UnicodeEncodeError:  # half a surrogate pair, which no UTF-8 can hold: U+FFFD stands for it
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace").encode()
