"""Templates to answers. Everything is escaped; no page holds a script or a style of its own, and none may be framed."""

from __future__ import annotations

import hashlib
from importlib.resources import files
from math import ceil
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from starlette.requests import Request
from starlette.responses import HTMLResponse, RedirectResponse, Response

from lsi_ray.service.api.errors import Refusal
from lsi_ray.service.backend import WRITE, Caller
from lsi_ray.service.web import paths
from lsi_ray.service.web.cookie import form_token, read_cookie
from lsi_ray.service.web.show import FILTERS

HEADERS = {
    "Content-Security-Policy": "default-src 'none'; style-src 'self'; script-src 'self'; img-src 'self'; "
    "connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Frame-Options": "DENY",
    "X-Content-Type-Options": "nosniff",
    # Not `no-referrer`: with it, browsers call the origin of our own forms `null`.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Permissions-Policy": "camera=(), microphone=(), geolocation=()",
    "Cache-Control": "no-store",
}
STATIC_TYPES = {"page.css": "text/css", "page.js": "text/javascript", "icon.svg": "image/svg+xml"}
STATIC_FILES = {name: files(__package__).joinpath("static", name).read_bytes() for name in STATIC_TYPES}
_VERSION = hashlib.sha256(b"".join(STATIC_FILES.values())).hexdigest()[:12]


def _environment() -> Environment:
    made = Environment(
        loader=PackageLoader("lsi_ray.service.web"),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    made.filters.update(FILTERS)
    made.globals.update(paths=paths, version=_VERSION)
    return made


_TEMPLATES = _environment()


def page(request: Request, template: str, *, status: int = 200, **values: Any) -> Response:
    """For who is signed in."""
    caller: Caller = request.state.caller
    cookie = read_cookie(request.scope)
    known = {"caller": caller, "may_write": WRITE in caller.scopes, "csrf": form_token(cookie) if cookie else ""}
    return _html(template, status, {"refusal": None, **known, **values})


def sign_in_page(wanted: str, refusal: Refusal | None = None) -> Response:
    values = {"caller": None, "wanted": paths.after_sign_in(wanted), "refusal": refusal}
    return _html("sign_in.html", refusal.rule.status if refusal is not None else 200, values)


def error_page(path: str, refusal: Refusal) -> Response:
    """For a refusal that no page shows by itself. Who is not signed in gets the form for it."""
    if refusal.code == "unauthenticated":
        return sign_in_page(path, refusal)
    response = _html("error.html", refusal.rule.status, {"caller": None, "refusal": refusal})
    response.headers.update(refusal.headers)
    if refusal.rule.status in (429, 503):
        wait_s = refusal.rule.retry_after_s if refusal.retry_after_s is None else refusal.retry_after_s
        response.headers["Retry-After"] = str(max(1, ceil(wait_s or 1)))
    return response


def see(path: str) -> Response:
    """After a form: the page to read, which may be loaded again without sending the form again."""
    return RedirectResponse(path, 303, headers=HEADERS)


def _html(template: str, status: int, values: dict[str, Any]) -> Response:
    text = _TEMPLATES.get_template(template).render(values)
    return HTMLResponse(text.encode("utf-8", "replace"), status, headers=HEADERS)
