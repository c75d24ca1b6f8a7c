"""OpenAI's routes for batches and models, with the same extensions as LSI's."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Query, Request, Response, Security
from fastapi.responses import StreamingResponse

from lsi_ray.service.api import openai_wire as wire
from lsi_ray.service.api import operations
from lsi_ray.service.api.changes import PATCH, RETRY, PatchRequest, RetryRequest
from lsi_ray.service.api.context import BEARER, ApiOf, BatchId, CallerOf, IdempotencyKey
from lsi_ray.service.api.repeats import repeat_of
from lsi_ray.service.api.results import RESPONSES, stream_results
from lsi_ray.service.api.submissions import from_openai

router = APIRouter(prefix="/v1", tags=["OpenAI"], dependencies=[Security(BEARER)])


@router.get("/models")
async def models(api: ApiOf, caller: CallerOf) -> wire.ModelList:  # noqa: ARG001
    return wire.models_of(await api.backend.models())


@router.post("/batches")
async def create_batch(
    api: ApiOf,
    caller: CallerOf,
    body: wire.BatchRequest,
    request: Request,
    response: Response,
    key: IdempotencyKey = None,
) -> wire.Batch:
    repeat = repeat_of("/v1/batches", await request.json(), key, api.settings)
    view, created = await api.backend.submit(caller, from_openai(body, repeat, api.settings))
    operations.say_replayed(response, created)
    return wire.batch_of(view, created)


@router.get("/batches")
async def list_batches(
    api: ApiOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=100)] = 20,
    after: Annotated[str | None, Query(description="The id of the last batch seen.", max_length=128)] = None,
) -> wire.BatchList:
    """Newest first, from both surfaces."""
    return wire.batches_of(await api.backend.list(caller, limit=limit, after_id=after))


@router.get("/batches/{batch_id}")
async def get_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> wire.Batch:
    return wire.batch_of(await api.backend.get(caller, batch_id))


@router.patch("/batches/{batch_id}", description=PATCH)
async def patch_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId, body: PatchRequest) -> wire.Batch:
    return wire.batch_of(await operations.patch(api, caller, batch_id, body))


@router.post("/batches/{batch_id}/cancel")
async def cancel_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> wire.Batch:
    """In any state that is not an end. Finished rows are delivered, the others become `batch_cancelled` lines."""
    return wire.batch_of(await api.backend.cancel(caller, batch_id))


@router.post("/batches/{batch_id}/retry", description=RETRY)
async def retry_batch(
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    request: Request,
    response: Response,
    body: RetryRequest | None = None,
    key: IdempotencyKey = None,
) -> wire.Batch:
    view, created = await operations.retry(api, caller, batch_id, body, request, key)
    operations.say_replayed(response, created)
    return wire.batch_of(view, created)


@router.get("/batches/{batch_id}/results", response_class=StreamingResponse, responses=RESPONSES)
async def get_results(
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    after: Annotated[int | None, Query(ge=0, le=2**32)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> StreamingResponse:
    return await stream_results(api.backend, caller, batch_id, after, limit)
