"""What the routes share, and what they take from a request."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated

from fastapi import Depends, Header, Path, Request
from fastapi.security import HTTPBearer

from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.backend import Backend, Caller, ServiceError

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,127}")

BEARER = HTTPBearer(auto_error=False, scheme_name="token", description="A token as `lsi token create` gives it.")
"""For the OpenAPI document; the gate has done the work."""


@dataclass(frozen=True, slots=True)
class Api:
    backend: Backend
    settings: ApiSettings
    clock: Callable[[], float]


def _api(request: Request) -> Api:
    api: Api = request.app.state.api
    return api


def _caller(request: Request) -> Caller:
    caller: Caller = request.state.caller
    return caller


def _id(text: str) -> str:
    """An id that none of ours can be is one that does not exist."""
    if not _ID.fullmatch(text):
        raise ServiceError("not_found", f"There is no {text[:64]!r}")
    return text


def _batch_id(batch_id: Annotated[str, Path()]) -> str:
    return _id(batch_id)


def _file_id(file_id: Annotated[str, Path()]) -> str:
    return _id(file_id)


ApiOf = Annotated[Api, Depends(_api)]
CallerOf = Annotated[Caller, Depends(_caller)]
BatchId = Annotated[str, Depends(_batch_id)]
FileId = Annotated[str, Depends(_file_id)]
IdempotencyKey = Annotated[
    str | None,
    Header(
        alias="Idempotency-Key",
        description="The same key and body again give the same batch. 1 to 255 printable ASCII characters.",
    ),
]
