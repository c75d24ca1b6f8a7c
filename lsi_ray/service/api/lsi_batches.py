"""LSI's routes: /v1/inference/batches and what stands beside it."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request, Response, Security
from fastapi.responses import StreamingResponse
from pydantic import Discriminator, Tag

from lsi_ray.service.api import lsi_wire as wire
from lsi_ray.service.api import operations
from lsi_ray.service.api.changes import PATCH, RETRY, PatchRequest, RetryRequest
from lsi_ray.service.api.context import BEARER, Api, ApiOf, BatchId, CallerOf, IdempotencyKey
from lsi_ray.service.api.errors import LSI_PREFIX
from lsi_ray.service.api.repeats import repeat_of
from lsi_ray.service.api.results import RESPONSES, stream_results
from lsi_ray.service.api.submissions import from_lsi
from lsi_ray.service.api.validation import MANY, ONE
from lsi_ray.service.backend import ServiceError, Submission

router = APIRouter(prefix=LSI_PREFIX, tags=["LSI"])
guarded = APIRouter(prefix=LSI_PREFIX, tags=["LSI"], dependencies=[Security(BEARER)])

OneOrMany = Annotated[
    Annotated[wire.LsiBatchRequest, Tag(ONE)] | Annotated[list[wire.LsiBatchRequest], Body(min_length=1), Tag(MANY)],
    Discriminator(lambda given: MANY if isinstance(given, list) else ONE),
]


@router.get("/health")
async def health(api: ApiOf) -> dict[str, Any]:
    return await api.backend.health()


@guarded.get("/models", response_model_exclude_none=True)
async def models(api: ApiOf, caller: CallerOf) -> list[wire.LsiModel]:  # noqa: ARG001
    return [wire.model_of(view) for view in await api.backend.models()]


@guarded.post("/batches", status_code=201, response_model_exclude_none=True)
async def create_batches(
    api: ApiOf, caller: CallerOf, body: OneOrMany, request: Request, response: Response, key: IdempotencyKey = None
) -> list[wire.LsiBatch]:
    """One request or an array of them; always an array of batches. All are checked before the first is taken; an array
    that was taken in part can be sent again as it was."""
    submissions = _submissions(api, body, await request.json(), key)
    made = [await api.backend.submit(caller, submission) for submission in submissions]
    operations.say_replayed(response, *(created for _, created in made))
    return [wire.batch_of(view, created) for view, created in made]


def _submissions(
    api: Api, body: wire.LsiBatchRequest | list[wire.LsiBatchRequest], content: Any, key: str | None
) -> list[Submission]:
    path, now = f"{LSI_PREFIX}/batches", api.clock()
    if not isinstance(body, list):
        return [from_lsi(body, repeat_of(path, content, key, api.settings), api.settings, now)]
    if len(body) > api.settings.max_batches_per_request:
        raise ServiceError("invalid_value", f"At most {api.settings.max_batches_per_request} batches at once")
    found = []
    for index, one in enumerate(body):
        try:
            found.append(from_lsi(one, repeat_of(path, content, key, api.settings, index), api.settings, now))
        except ServiceError as error:
            param = f"[{index}].{error.param}" if error.param else f"[{index}]"
            raise ServiceError(error.code, f"[{index}] {error.message}", param=param) from None
    return found


@guarded.get("/batches", response_model_exclude_none=True)
async def list_batches(
    api: ApiOf,
    caller: CallerOf,
    limit: Annotated[int, Query(ge=1, le=1000)] = 100,
    after: Annotated[int, Query(ge=0, le=2**31, description="How many to leave out from the start.")] = 0,
    archived: Annotated[bool, Query(description="Archived ones too.")] = False,
) -> list[wire.LsiBatch]:
    """Newest first, from both surfaces."""
    page = await api.backend.list(caller, limit=limit, offset=after, archived=archived)
    return [wire.batch_of(view) for view in page.items]


@guarded.get("/batches/{batch_id}", response_model_exclude_none=True)
async def get_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> wire.LsiBatch:
    return wire.batch_of(await api.backend.get(caller, batch_id))


@guarded.patch("/batches/{batch_id}", description=PATCH, response_model_exclude_none=True)
async def patch_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId, body: PatchRequest) -> wire.LsiBatch:
    return wire.batch_of(await operations.patch(api, caller, batch_id, body))


@guarded.post("/batches/{batch_id}/cancel", response_model_exclude_none=True)
async def cancel_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> wire.LsiBatch:
    """In any state that is not an end. Finished rows are delivered, the others become `batch_cancelled` lines."""
    return wire.batch_of(await api.backend.cancel(caller, batch_id))


@guarded.post("/batches/{batch_id}/retry", description=RETRY, response_model_exclude_none=True)
async def retry_batch(
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    request: Request,
    response: Response,
    body: RetryRequest | None = None,
    key: IdempotencyKey = None,
) -> wire.LsiBatch:
    view, created = await operations.retry(api, caller, batch_id, body, request, key)
    operations.say_replayed(response, created)
    return wire.batch_of(view, created)


@guarded.post("/batches/{batch_id}/archive", status_code=204)
async def archive_batch(api: ApiOf, caller: CallerOf, batch_id: BatchId) -> None:
    """Hide a batch that has ended from the list."""
    await api.backend.archive(caller, batch_id)


@guarded.get("/batches/{batch_id}/results", response_class=StreamingResponse, responses=RESPONSES)
async def get_results(
    api: ApiOf,
    caller: CallerOf,
    batch_id: BatchId,
    after: Annotated[int | None, Query(ge=0, le=2**32)] = None,
    limit: Annotated[int | None, Query(ge=1)] = None,
) -> StreamingResponse:
    return await stream_results(api.backend, caller, batch_id, after, limit)
