"""A refusal as an answer: in the words of the surface that was asked, or as a page."""

from __future__ import annotations

from starlette.responses import JSONResponse, Response

from lsi_ray.service.api.errors import LSI_PREFIX, Refusal, headers_of, lsi_body, openai_body
from lsi_ray.service.web.paths import is_page
from lsi_ray.service.web.render import error_page


def respond(path: str, refusal: Refusal) -> Response:
    if is_page(path):
        return error_page(path, refusal)
    body = lsi_body(refusal) if path.startswith(LSI_PREFIX) else openai_body(refusal)
    return JSONResponse(body, refusal.rule.status, headers=headers_of(refusal))
