"""The one mapping from error codes to HTTP, and the two bodies that say it (`respond.py` sends them, or a page).

Both surfaces answer an error with the same status, code and message; LSI's body is `{type, message, details}`, OpenAI's
`{"error": {message, type, param, code}}`. The OpenAI SDK repeats 408, 409, 429 and 5xx by itself: where that is no use
`x-should-retry: false` stops it. A code that is not in the table is a bug of ours, or tells about one: it becomes
`internal_error`, and its message stays in the log.
"""

from __future__ import annotations

import logging
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import ceil
from typing import Any

from lsi_ray.errors import BatchRefused, Finding, LsiError
from lsi_ray.service.api.wire_names import in_wire_words, wire_name
from lsi_ray.storage.redact import redact

log = logging.getLogger(__name__)

LSI_PREFIX = "/v1/inference"


@dataclass(frozen=True, slots=True)
class Rule:
    """`again`: whether the very same request may go well a little later."""

    status: int
    lsi: str
    openai: str = "invalid_request_error"
    again: bool = False
    retry_after_s: float | None = None


_INVALID = Rule(400, "invalid_request_error")
_STATE = Rule(409, "conflict")
_BUSY = Rule(429, "service_unavailable", "rate_limit_error", again=True, retry_after_s=1)
_FULL = Rule(429, "service_unavailable", "rate_limit_error", retry_after_s=600)
_DOWN = Rule(503, "service_unavailable", "server_error", again=True, retry_after_s=2)
_DISK_S = 10.0

RULES: dict[str, Rule] = {
    # the request is wrong
    "invalid_request": _INVALID,
    "invalid_json": _INVALID,
    "invalid_value": _INVALID,
    "missing_required_parameter": _INVALID,
    "unknown_field": _INVALID,
    "invalid_idempotency_key": _INVALID,
    "idempotency_conflict": Rule(422, "idempotency_error"),
    "payload_too_large": Rule(413, "invalid_request_error"),
    "file_too_large": Rule(413, "invalid_request_error"),
    "unsupported_media_type": Rule(415, "invalid_request_error"),
    "request_timeout": Rule(408, "request_timed_out", again=True),
    "method_not_allowed": Rule(405, "invalid_request_error"),
    # uploads
    "invalid_multipart": _INVALID,
    "upload_incomplete": _INVALID,
    "empty_file": _INVALID,
    # URLs and input
    "invalid_url": _INVALID,
    "destination_not_allowed": _INVALID,
    "url_expired": _INVALID,
    "url_ends_early": _INVALID,
    "output_url_required": _INVALID,
    "model_not_found": _INVALID,
    "endpoint_not_supported": _INVALID,
    "invalid_input_file": _INVALID,
    # who asks
    "unauthenticated": Rule(401, "authentication_error", "authentication_error"),
    "forbidden": Rule(403, "forbidden", "permission_error"),
    # what is asked for
    "not_found": Rule(404, "not_found"),
    "no_such_batch": Rule(404, "not_found"),
    "results_gone": Rule(410, "not_found"),
    "not_cancellable": _STATE,
    "not_retryable": _STATE,
    "nothing_to_retry": _STATE,
    "retry_limit": _STATE,
    "not_archivable": _STATE,
    "not_patchable": _STATE,
    "illegal_transition": _STATE,
    "file_in_use": _STATE,
    # how much is asked for
    "rate_limited": _BUSY,
    "no_capacity": _FULL,
    "too_many_batches": _FULL,
    "too_many_rows": _FULL,
    "too_many_bytes": _FULL,
    # ours
    "unavailable": _DOWN,
    "not_implemented": Rule(501, "not_implemented", "server_error"),
    "internal_error": Rule(500, "api_error", "server_error", again=True),
}

STATUS_CODES = {404: "not_found", 405: "method_not_allowed", 413: "payload_too_large", 415: "unsupported_media_type"}


@dataclass(frozen=True, slots=True)
class Refusal:
    """An error on its way out."""

    code: str
    message: str
    findings: Sequence[Finding] = ()
    param: str | None = None
    retry_after_s: float | None = None
    headers: Mapping[str, str] = field(default_factory=dict)

    @property
    def rule(self) -> Rule:
        return RULES[self.code]


_LSI_NAMES: dict[str | None, str] = {"model": "model_id"}


def refusal_of(error: LsiError) -> Refusal:
    if error.code in ("ledger_io", "work_dir_full"):
        log_fault("the ledger cannot be written", error)
        return Refusal("unavailable", "The service cannot write to its disk now", retry_after_s=_DISK_S)
    if error.code not in RULES:
        log_fault(f"unmapped error code {error.code}", error)
        return INTERNAL
    param, retry_after_s = getattr(error, "param", None), getattr(error, "retry_after_s", None)
    findings = error.findings if isinstance(error, BatchRefused) else ()
    return Refusal(error.code, redact(in_wire_words(error.message)), findings, wire_name(param), retry_after_s)


def log_fault(what: str, error: Exception) -> None:
    """With its traceback; `exc_info` would print the messages of its causes as they are."""
    log.error("%s\n%s", redact(what), redact("".join(traceback.format_exception(error))))


INTERNAL = Refusal("internal_error", "The service failed to answer this; its log says why.")


def lsi_body(refusal: Refusal) -> dict[str, Any]:
    findings = refusal.findings or [Finding(refusal.code, refusal.message, param=refusal.param)]
    details = [{"code": f.code, "field": _LSI_NAMES.get(f.param, f.param), "message": f.message} for f in findings]
    # LSI's schema has `field` optional, not null.
    details = [{key: value for key, value in detail.items() if value is not None} for detail in details]
    return {"type": refusal.rule.lsi, "message": refusal.message, "details": details}


def openai_body(refusal: Refusal) -> dict[str, Any]:
    error = {
        "message": refusal.message,
        "type": refusal.rule.openai,
        "param": refusal.param,
        "code": refusal.code,
    }
    return {"error": error}


def headers_of(refusal: Refusal) -> dict[str, str]:
    headers = dict(refusal.headers)
    rule = refusal.rule
    wait_s = rule.retry_after_s if refusal.retry_after_s is None else refusal.retry_after_s
    if wait_s is not None and rule.status in (429, 503):
        headers["Retry-After"] = str(max(1, ceil(wait_s)))
    if not rule.again:
        headers["x-should-retry"] = "false"
    if rule.status == 401:
        headers["WWW-Authenticate"] = "Bearer"
    return headers
