"""Forms on the page of one batch: cancel, retry, another window or URL, archive; what the API does, by the same way."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lsi_ray.errors import LsiError
from lsi_ray.service.api import operations
from lsi_ray.service.api.changes import PatchRequest, RetryRequest
from lsi_ray.service.api.context import ApiOf, BatchId, CallerOf
from lsi_ray.service.api.repeats import repeat_of
from lsi_ray.service.api.submissions import retry_from
from lsi_ray.service.web import paths
from lsi_ray.service.web.batch_routes import show_batch
from lsi_ray.service.web.forms import FormOf, is_checked, read_form, refusal_to_show, whole_number
from lsi_ray.service.web.render import see

router = APIRouter(prefix=f"{paths.PREFIX}/batches/{{batch_id}}", include_in_schema=False)


@router.post("/cancel")
async def cancel(request: Request, api: ApiOf, caller: CallerOf, batch_id: BatchId, form: FormOf) -> Response:  # noqa: ARG001
    try:
        await api.backend.cancel(caller, batch_id)
    except LsiError as error:
        return await show_batch(request, api, caller, batch_id, refusal=refusal_to_show(error))
    return see(f"{paths.batch_path(batch_id)}?said=cancelled")


@router.post("/archive")
async def archive(request: Request, api: ApiOf, caller: CallerOf, batch_id: BatchId, form: FormOf) -> Response:  # noqa: ARG001
    try:
        await api.backend.archive(caller, batch_id)
    except LsiError as error:
        return await show_batch(request, api, caller, batch_id, refusal=refusal_to_show(error))
    return see(f"{paths.batch_path(batch_id)}?said=archived")


@router.post("/change")
async def change(request: Request, api: ApiOf, caller: CallerOf, batch_id: BatchId, form: FormOf) -> Response:
    try:
        body = read_form(PatchRequest, form, {"priority": whole_number})
        await operations.patch(api, caller, batch_id, body)
    except LsiError as error:
        return await show_batch(request, api, caller, batch_id, refusal=refusal_to_show(error))
    return see(f"{paths.batch_path(batch_id)}?said=changed")


@router.post("/retry")
async def retry(request: Request, api: ApiOf, caller: CallerOf, batch_id: BatchId, form: FormOf) -> Response:
    try:
        body = read_form(RetryRequest, form, {"failed_only": is_checked})
        repeat = repeat_of(request.scope["path"], form, None, api.settings)
        view = await api.backend.get(caller, batch_id)
        asked = retry_from(body, view, repeat, api.settings, api.clock())
        made, created = await api.backend.retry(caller, batch_id, asked)
    except LsiError as error:
        return await show_batch(request, api, caller, batch_id, refusal=refusal_to_show(error))
    return see(f"{paths.batch_path(made.id)}?said={'retried' if created else 'repeated'}")
