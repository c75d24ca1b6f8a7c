"""What both surfaces do alike behind their routes."""

from __future__ import annotations

from fastapi import Request, Response

from lsi_ray.service.api.changes import PatchRequest, RetryRequest
from lsi_ray.service.api.context import Api
from lsi_ray.service.api.repeats import REPLAYED, repeat_of
from lsi_ray.service.api.submissions import patch_from, retry_from
from lsi_ray.service.backend import BatchView, Caller


async def retry(
    api: Api, caller: Caller, batch_id: str, body: RetryRequest | None, request: Request, key: str | None
) -> tuple[BatchView, bool]:
    view = await api.backend.get(caller, batch_id)
    content = await request.json() if body is not None else None
    repeat = repeat_of(request.scope["path"], content, key, api.settings)
    wanted = retry_from(body or RetryRequest(), view, repeat, api.settings, api.clock())
    return await api.backend.retry(caller, batch_id, wanted)


async def patch(api: Api, caller: Caller, batch_id: str, body: PatchRequest) -> BatchView:
    view = await api.backend.get(caller, batch_id)
    return await api.backend.patch(caller, batch_id, patch_from(body, view, api.settings, api.clock()))


def say_replayed(response: Response, *created: bool) -> None:
    """A header for the answer in which nothing is new; each batch says for itself whether it is."""
    if not any(created):
        response.headers[REPLAYED] = "true"
