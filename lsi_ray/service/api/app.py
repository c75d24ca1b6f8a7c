"""The application, in one function: the gate, two surfaces and the page, one way for errors."""

from __future__ import annotations

import time
from collections.abc import Callable

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from starlette.exceptions import HTTPException
from starlette.routing import Match

from lsi_ray.errors import LsiError
from lsi_ray.service.api import lsi_batches, openai_batches, openai_files
from lsi_ray.service.api.context import Api
from lsi_ray.service.api.document import describe
from lsi_ray.service.api.errors import INTERNAL, STATUS_CODES, Refusal, refusal_of
from lsi_ray.service.api.gate import Gate
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.api.respond import respond
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.api.validation import refusal_of_validation
from lsi_ray.service.backend import Backend
from lsi_ray.service.web import batch_routes, change_routes, cluster_routes, sign_in_routes, submit_routes


def create_app(
    backend: Backend,
    settings: ApiSettings | None = None,
    *,
    clock: Callable[[], float] = time.time,
    steady_clock: Callable[[], float] = time.monotonic,
) -> FastAPI:
    """`clock` tells the time of day, `steady_clock` counts for the rate limits."""
    settings = settings or ApiSettings()
    app = FastAPI(title="lsi-ray", redoc_url=None, redirect_slashes=False)
    app.state.api = Api(backend, settings, clock)
    for router in (lsi_batches.router, lsi_batches.guarded, openai_batches.router, openai_files.router):
        app.include_router(router)
    for pages in (sign_in_routes, batch_routes, change_routes, submit_routes, cluster_routes):
        app.include_router(pages.router)
    app.add_exception_handler(LsiError, _on_refusal)
    app.add_exception_handler(RequestValidationError, _on_invalid)
    app.add_exception_handler(HTTPException, _on_http)
    app.add_middleware(Gate, backend=backend, settings=settings, limiter=RateLimiter(settings.rates, steady_clock))
    app.openapi = lambda: _document(app)  # type: ignore[method-assign]
    return app


def _document(app: FastAPI) -> dict[str, object]:
    if not app.openapi_schema:
        app.openapi_schema = describe(app)
    return app.openapi_schema


async def _on_refusal(request: Request, error: Exception) -> Response:
    assert isinstance(error, LsiError)
    return respond(request.scope["path"], refusal_of(error))


async def _on_invalid(request: Request, error: Exception) -> Response:
    assert isinstance(error, RequestValidationError)
    return respond(request.scope["path"], refusal_of_validation(error.errors()))


async def _on_http(request: Request, error: Exception) -> Response:
    """What Starlette refuses by itself: unknown paths and methods, bodies that cannot be read."""
    assert isinstance(error, HTTPException)
    if error.status_code >= 500:
        return respond(request.scope["path"], INTERNAL)
    code = STATUS_CODES.get(error.status_code, "invalid_request")
    headers = {"Allow": _allowed(request)} if error.status_code == 405 else {}
    return respond(request.scope["path"], Refusal(code, str(error.detail), headers=headers))


def _allowed(request: Request) -> str:
    """The methods of all routes of this path; Starlette names those of the first."""
    scope = dict(request.scope)
    found = {
        method
        for route in request.app.routes
        for method in getattr(route, "methods", None) or ()
        if route.matches(scope)[0] != Match.NONE
    }
    return ", ".join(sorted(found))
