"""Signing in with a token, signing out, and the files that every page needs."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Path, Query, Request, Response

from lsi_ray.service.api.context import ApiOf
from lsi_ray.service.api.errors import Refusal
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.web import paths
from lsi_ray.service.web.cookie import check_origin, drop_cookie, read_cookie, set_cookie
from lsi_ray.service.web.forms import FormOf, fields_of
from lsi_ray.service.web.render import HEADERS, STATIC_FILES, STATIC_TYPES, see, sign_in_page

router = APIRouter(include_in_schema=False)

_REFUSED = Refusal("unauthenticated", "This token is not valid. It may have expired or been revoked.")
_TOKEN_CHARS = 256


@router.get(paths.SIGN_IN)
async def sign_in_form(wanted: Annotated[str, Query(alias="next", max_length=512)] = paths.HOME) -> Response:
    return sign_in_page(wanted)


@router.post(paths.SIGN_IN)
async def sign_in(api: ApiOf, request: Request) -> Response:
    """Strangers cost one look-up, and holders of a token what any of their writes does."""
    check_origin(request.scope)
    fields = fields_of(await request.body(), request.headers.get("content-type", ""))
    token, wanted = fields.get("token", ""), fields.get("next", paths.HOME)
    caller = await api.backend.authenticate(token) if len(token) <= _TOKEN_CHARS else None
    if caller is None:
        return sign_in_page(wanted, _REFUSED)
    if wait_s := await api.backend.write_wait_s(caller, "openai_writes"):
        raise ServiceError("rate_limited", "Too many requests: slow down", retry_after_s=wait_s)
    signed = await api.backend.sign_in(token)
    if signed is None:
        return sign_in_page(wanted, _REFUSED)
    response = see(paths.after_sign_in(wanted))
    set_cookie(response, request.scope, signed.text, signed.expires_at - api.clock())
    return response


@router.post(paths.SIGN_OUT)
async def sign_out(api: ApiOf, request: Request, form: FormOf) -> Response:  # noqa: ARG001
    cookie = read_cookie(request.scope)
    assert cookie is not None  # the form's token was its digest
    await api.backend.sign_out(cookie)
    response = see(paths.SIGN_IN)
    drop_cookie(response, request.scope)
    return response


@router.get(f"{paths.STATIC}/{{name}}")
async def static(name: Annotated[str, Path()]) -> Response:
    if name not in STATIC_FILES:
        raise ServiceError("not_found", "There is no such file")
    # Pages name them with a digest of their content.
    headers = HEADERS | {"Cache-Control": "public, max-age=86400"}
    return Response(STATIC_FILES[name], headers=headers, media_type=STATIC_TYPES[name])
