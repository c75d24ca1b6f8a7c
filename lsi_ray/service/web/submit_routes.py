"""Submitting from the page: URLs, or a file that goes the way of the Files API. URLs are never shown again."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator, Mapping
from contextlib import suppress
from dataclasses import replace
from typing import Any, get_args

from fastapi import APIRouter, Request, Response

from lsi_ray.errors import LsiError
from lsi_ray.service.api.context import Api, ApiOf, CallerOf
from lsi_ray.service.api.errors import Refusal
from lsi_ray.service.api.fields import Endpoint
from lsi_ray.service.api.lsi_wire import LsiBatchRequest
from lsi_ray.service.api.multipart import read_form_upload
from lsi_ray.service.api.openai_wire import BatchRequest
from lsi_ray.service.api.repeats import repeat_of
from lsi_ray.service.api.submissions import from_lsi, from_openai
from lsi_ray.service.backend import BatchView, Caller
from lsi_ray.service.web import paths
from lsi_ray.service.web.cookie import check_form
from lsi_ray.service.web.forms import FormOf, read_form, refusal_to_show, whole_number
from lsi_ray.service.web.render import page, see

router = APIRouter(include_in_schema=False)

_SECRET = ("input_file_uri", "output_file_uri")
_UPLOAD_FIELDS = frozenset({"csrf", "endpoint", "model_id", "completion_window", "priority"})
_TO_COME = "file-to-come"
"""Stands for the file while the rest of the form is checked: what is wrong is said before 5 GB were sent."""


@router.get(paths.SUBMIT)
async def submit_form(request: Request, api: ApiOf, caller: CallerOf) -> Response:  # noqa: ARG001
    return await _show(request, api, {})


@router.post(paths.SUBMIT)
async def submit(request: Request, api: ApiOf, caller: CallerOf, form: FormOf) -> Response:
    try:
        body = read_form(LsiBatchRequest, form, {"priority": whole_number})
        asked = from_lsi(body, repeat_of(paths.SUBMIT, form, None, api.settings), api.settings, api.clock())
        made, created = await api.backend.submit(caller, asked)
    except LsiError as error:
        return await _show(request, api, form, refusal_to_show(error))
    return _see(made, created)


@router.post(paths.UPLOAD)
async def upload(request: Request, api: ApiOf, caller: CallerOf) -> Response:
    """The fields stand before the file; a form whose token does not come first is refused before anything is kept."""
    fields: dict[str, str] = {}
    try:
        made, created = await _take_upload(request, api, caller, fields)
    except LsiError as error:
        if error.code == "forbidden":
            raise
        return await _show(request, api, fields, refusal_to_show(error))
    return _see(made, created)


async def _take_upload(request: Request, api: Api, caller: Caller, fields: dict[str, str]) -> tuple[BatchView, bool]:
    upload, sent = await read_form_upload(request, api.settings, _UPLOAD_FIELDS)
    check_form(request.scope, sent.get("csrf", ""))
    fields |= {name: text.strip() for name, text in sent.items() if name in _UPLOAD_FIELDS - {"csrf"} and text.strip()}
    body = read_form(BatchRequest, {**fields, "input_file_id": _TO_COME}, {"priority": whole_number})
    asked = from_openai(body, repeat_of(paths.UPLOAD, {}, None, api.settings), api.settings)
    digest = hashlib.sha256()
    upload.chunks = _digesting(upload.chunks, digest)
    file = await api.backend.create_file(caller, upload)
    try:
        # The same file and fields again, as by a second click, are the same batch.
        repeat = repeat_of(paths.UPLOAD, {**fields, "sha256": digest.hexdigest()}, None, api.settings)
        made, created = await api.backend.submit(caller, replace(asked, input_file_id=file.id, repeat=repeat))
    except LsiError:
        await _forget(api, caller, file.id)
        raise
    if not created:
        await _forget(api, caller, file.id)
    return made, created


async def _digesting(chunks: AsyncIterator[bytes], digest: Any) -> AsyncIterator[bytes]:
    async for chunk in chunks:
        digest.update(chunk)
        yield chunk


async def _forget(api: Api, caller: Caller, file_id: str) -> None:
    with suppress(LsiError):  # it expires by itself
        await api.backend.delete_file(caller, file_id)


async def _show(request: Request, api: Api, fields: Mapping[str, str], refusal: Refusal | None = None) -> Response:
    """With what was filled in, but for URLs: they are secrets."""
    models = [model for model in await api.backend.models() if model.retired_at is None]
    return page(
        request,
        "submit.html",
        status=refusal.rule.status if refusal is not None else 200,
        models=models,
        endpoints=get_args(Endpoint),
        given={name: text for name, text in fields.items() if name not in _SECRET},
        refusal=refusal,
        max_bytes=api.settings.max_file_bytes,
    )


def _see(made: BatchView, created: bool) -> Response:
    return see(f"{paths.batch_path(made.id)}?said={'submitted' if created else 'repeated'}")
