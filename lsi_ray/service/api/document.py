"""The OpenAPI document, made true: FastAPI describes its own 422, ours are the errors of `errors.py`."""

from __future__ import annotations

from typing import Any

from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from lsi_ray import __version__
from lsi_ray.service.api.errors import LSI_PREFIX, RULES

DESCRIPTION = """Large Scale Inference: batches of multimodal requests, each answered exactly once.

Two surfaces over the same batches: LSI's under `/v1/inference`, OpenAI's Files and Batches under `/v1`."""

_DETAIL = {
    "type": "object",
    "required": ["code", "message"],
    "properties": {"code": {"type": "string"}, "field": {"type": "string"}, "message": {"type": "string"}},
}
_LSI_ERROR = {
    "type": "object",
    "required": ["type", "message", "details"],
    "properties": {
        "type": {"type": "string", "enum": sorted({rule.lsi for rule in RULES.values()})},
        "message": {"type": "string"},
        "details": {"type": "array", "items": _DETAIL},
    },
}
_TEXT_OR_NULL = {"anyOf": [{"type": "string"}, {"type": "null"}]}
_OPENAI_ERROR = {
    "type": "object",
    "required": ["error"],
    "properties": {
        "error": {
            "type": "object",
            "required": ["message", "type", "param", "code"],
            "properties": {
                "message": {"type": "string"},
                "type": {"type": "string"},
                "param": _TEXT_OR_NULL,
                "code": {"type": "string", "enum": sorted(RULES)},
            },
        }
    },
}
_EVERYWHERE = {
    400: "The request is wrong.",
    401: "No valid token.",
    403: "The token lacks the scope.",
    404: "There is no such thing, or it is somebody else's.",
    405: "Not that method.",
    408: "The request did not come in time.",
    413: "The body is too large.",
    429: "Too often, or more than can be done; `Retry-After` says when to come again.",
    500: "A fault of the service.",
    501: "Not done yet.",
    503: "The service cannot answer now.",
}
_WRITES = {409: "The state of the batch or file does not allow it.", 422: "The Idempotency-Key had another body."}


def describe(app: FastAPI) -> dict[str, Any]:
    document = get_openapi(
        title="lsi-ray", version=__version__, description=DESCRIPTION, routes=app.routes, tags=app.openapi_tags
    )
    for path, operations in document["paths"].items():
        error = "LsiError" if path.startswith(LSI_PREFIX) else "OpenAIError"
        for method, operation in operations.items():
            _describe_errors(operation["responses"], error, _codes(path, method))
    schemas = document["components"]["schemas"]
    for unused in ("HTTPValidationError", "ValidationError"):
        schemas.pop(unused, None)
    schemas |= {"LsiError": _LSI_ERROR, "OpenAIError": _OPENAI_ERROR}
    return document


def _codes(path: str, method: str) -> dict[int, str]:
    codes = _EVERYWHERE | (_WRITES if method != "get" else {})
    if path.endswith(("/results", "/content")):
        codes |= {410: "The data was erased after its delivery."}
    if method == "post" and path == "/v1/files":
        codes |= {415: "Not a multipart form."}
    return codes


def _describe_errors(responses: dict[str, Any], error: str, codes: dict[int, str]) -> None:
    responses.pop("422", None)
    content = {"application/json": {"schema": {"$ref": f"#/components/schemas/{error}"}}}
    for code, text in sorted(codes.items()):
        responses[str(code)] = {"description": text, "content": content}
