"""What FastAPI and Starlette find wrong with a request, in our words; what was given is never repeated."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from lsi_ray.errors import Finding
from lsi_ray.service.api.errors import Refusal

_CODES = {
    "missing": "missing_required_parameter",
    "extra_forbidden": "unknown_field",
    "json_invalid": "invalid_json",
}
_MAX_FINDINGS = 20
ONE, MANY = "one", "many"
"""Tags of a body that is one object or an array; they stand in pydantic's locations."""


def refusal_of_validation(errors: Sequence[Any]) -> Refusal:
    findings = [_finding(error) for error in errors[:_MAX_FINDINGS]]
    first = findings[0]
    more = f" (and {len(errors) - 1} more)" if len(errors) > 1 else ""
    code = "invalid_request" if len(findings) > 1 else first.code
    return Refusal(code, first.message + more, findings, first.param)


def _finding(error: dict[str, Any]) -> Finding:
    code = _CODES.get(error["type"], "invalid_value")
    param = _param(error["loc"])
    text = str(error["msg"]).removeprefix("Value error, ")
    if code == "unknown_field":
        text = "there is no such field"
    elif code == "missing_required_parameter":
        text = "this field is required"
    elif code == "invalid_json":
        # JSON's own message, without the text around the place.
        text = f"the body is not JSON: {error.get('ctx', {}).get('error', 'syntax error')}"
    elif not param:
        text = f"the body: {text} (send JSON with Content-Type: application/json)"
    return Finding(code, f"{param}: {text}" if param else text, param=param)


def _param(location: Sequence[str | int]) -> str | None:
    """("body", "many", 3, "metadata", "k") -> "[3].metadata.k"."""
    parts = [part for part in location[1:] if part not in (ONE, MANY, "[key]")]
    path = "".join(f"[{part}]" if isinstance(part, int) else f".{part[:64]}" for part in parts)
    return path.removeprefix(".") or None
