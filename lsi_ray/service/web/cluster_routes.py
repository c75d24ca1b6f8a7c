"""The cluster at a glance: nodes, engines, and what all callers together wait for; nobody's batches by name."""

from __future__ import annotations

from fastapi import APIRouter, Request, Response

from lsi_ray.service.api.context import ApiOf, CallerOf
from lsi_ray.service.web import paths
from lsi_ray.service.web.render import page

router = APIRouter(include_in_schema=False)


@router.get(paths.CLUSTER)
async def cluster(request: Request, api: ApiOf, caller: CallerOf) -> Response:  # noqa: ARG001
    return page(request, "cluster.html", cluster=await api.backend.cluster(), live=True)


@router.get(f"{paths.CLUSTER}/live")
async def cluster_live(request: Request, api: ApiOf, caller: CallerOf) -> Response:  # noqa: ARG001
    return page(request, "_cluster.html", cluster=await api.backend.cluster(), live=True)
