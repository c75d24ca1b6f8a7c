"""Batches and one batch, to read; all that is here is the caller's own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Annotated, Any

from fastapi import APIRouter, Path, Query, Request, Response
from fastapi.responses import StreamingResponse

from lsi_ray.service.api import openai_files
from lsi_ray.service.api.context import Api, ApiOf, BatchId, CallerOf, FileId
from lsi_ray.service.api.errors import Refusal
from lsi_ray.service.api.results import FROM_START, MEDIA_TYPE
from lsi_ray.service.backend import BatchView, Caller, Result, ServiceError
from lsi_ray.service.page_views import ClusterView, SampleRow
from lsi_ray.service.thumbnails import MEDIA_TYPE as PICTURE_TYPE
from lsi_ray.service.web import paths
from lsi_ray.service.web.chart import chart
from lsi_ray.service.web.render import HEADERS, page

router = APIRouter(include_in_schema=False)

_PAGE = 50
_SAMPLE = 12
_SAID = {
    "submitted": "The batch was accepted.",
    "repeated": "This batch was submitted before; nothing was done twice.",
    "cancelled": "The batch is being cancelled: what is finished is delivered.",
    "retried": "This is the new batch.",
    "changed": "The batch was changed.",
    "archived": "The batch was archived: the list leaves it out.",
}

After = Annotated[str | None, Query(max_length=128)]


@router.get(paths.HOME)
async def batches(request: Request, api: ApiOf, caller: CallerOf, after: After = None) -> Response:
    return page(request, "batches.html", **await _batches(api, caller, after))


@router.get(f"{paths.PREFIX}/live")
async def batches_live(request: Request, api: ApiOf, caller: CallerOf, after: After = None) -> Response:
    return page(request, "_batches.html", **await _batches(api, caller, after))


async def _batches(api: Api, caller: Caller, after: str | None) -> dict[str, Any]:
    found = await api.backend.list(caller, limit=_PAGE, after_id=after)
    cluster = await api.backend.cluster()
    return {
        "batches": found.items,
        "has_more": found.has_more,
        "after": after,
        "replicas": {model.id: model.ready for model in cluster.models},
        "live": any(not view.status.terminal for view in found.items),
    }


@router.get(f"{paths.PREFIX}/batches/{{batch_id}}")
async def batch(
    request: Request,
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    said: Annotated[str, Query(max_length=20)] = "",
) -> Response:
    return await show_batch(request, api, caller, batch_id, said=_SAID.get(said, ""))


async def show_batch(
    request: Request, api: Api, caller: Caller, batch_id: str, *, said: str = "", refusal: Refusal | None = None
) -> Response:
    """`refusal`: of a form on it."""
    values = await _progress(api, caller, batch_id)
    rows, gone = await _sample(api, caller, values["batch"])
    status = refusal.rule.status if refusal is not None else 200
    return page(request, "batch.html", status=status, **values, rows=rows, rows_gone=gone, said=said, refusal=refusal)


@router.get(f"{paths.PREFIX}/batches/{{batch_id}}/live")
async def batch_live(request: Request, api: ApiOf, caller: CallerOf, batch_id: BatchId) -> Response:
    return page(request, "_batch.html", **await _progress(api, caller, batch_id))


async def _progress(api: Api, caller: Caller, batch_id: str) -> dict[str, Any]:
    view = await api.backend.get(caller, batch_id)
    moments = await api.backend.pace(caller, batch_id)
    return {
        "batch": view,
        "chart": chart(view, moments, api.clock()),
        "replicas": _replicas(await api.backend.cluster(), view),
        "live": not view.status.terminal,
    }


def _replicas(cluster: ClusterView, view: BatchView) -> int | None:
    return next((model.ready for model in cluster.models if model.id == view.model), None)


async def _sample(api: Api, caller: Caller, view: BatchView) -> tuple[tuple[SampleRow, ...], bool]:
    """The rows, and whether there were some that are erased."""
    with suppress(ServiceError):  # it has ended and is erased, or is just now
        return await api.backend.sample(caller, view.id, _SAMPLE), False
    return (), True


@router.get(f"{paths.PREFIX}/batches/{{batch_id}}/media/{{position}}/{{number}}")
async def thumbnail(
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    position: Annotated[int, Path(ge=0, le=2**32)],
    number: Annotated[int, Path(ge=0, le=10_000)],
) -> Response:
    picture = await api.backend.thumbnail(caller, batch_id, position, number)
    return Response(picture, headers=HEADERS | {"Cache-Control": "private, max-age=300"}, media_type=PICTURE_TYPE)


@router.get(f"{paths.PREFIX}/batches/{{batch_id}}/results.jsonl")
async def results(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> StreamingResponse:
    """What is finished up to the first row that is not, in the order of the input: lines of output and of errors."""
    found = api.backend.results(caller, batch_id, FROM_START)
    first = await anext(found, None)  # refusals come before the answer has begun
    headers = HEADERS | {"Content-Disposition": f'attachment; filename="{batch_id}-so-far.jsonl"'}
    return StreamingResponse(_lines(first, found), headers=headers, media_type=MEDIA_TYPE)


async def _lines(first: Result | None, rest: AsyncIterator[Result]) -> AsyncIterator[bytes]:
    if first is None:
        return
    yield first.line + b"\n"
    async for result in rest:
        yield result.line + b"\n"


@router.get(f"{paths.PREFIX}/files/{{file_id}}")
async def file(api: ApiOf, caller: CallerOf, file_id: FileId) -> StreamingResponse:
    response = await openai_files.get_content(api, caller, file_id)
    response.headers.update(HEADERS)
    return response
