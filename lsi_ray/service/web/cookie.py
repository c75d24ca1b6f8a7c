"""The cookie of a sign-in, and what shows that a form is one of ours.

The cookie holds random bits that the ledger knows by their digest, never the token. Browsers send it to this service
alone and not along with what other sites make them send (`SameSite=Strict`); that a form also carries a digest of it
guards where a browser does not know the attribute.
"""

from __future__ import annotations

import hashlib
import hmac
import re
from urllib.parse import urlsplit

from starlette.datastructures import Headers
from starlette.requests import cookie_parser
from starlette.responses import Response
from starlette.types import Scope

from lsi_ray.service.backend import ServiceError

_SECRET = re.compile(r"[A-Za-z0-9_-]{20,100}")
_OURS = ("same-origin", "none")


def is_secure(scope: Scope) -> bool:
    """Whether the browser came over TLS, which ends before us; who lies about it keeps the cookie from themselves."""
    return bool(scope["scheme"] == "https" or Headers(scope=scope).get("x-forwarded-proto", "") == "https")


def _name(scope: Scope) -> str:
    """With the prefix, browsers take it from nobody else of our domain."""
    return "__Host-lsi" if is_secure(scope) else "lsi"


def read_cookie(scope: Scope) -> str | None:
    text = cookie_parser(Headers(scope=scope).get("cookie", "")).get(_name(scope), "")
    return text if _SECRET.fullmatch(text) else None


def set_cookie(response: Response, scope: Scope, text: str, lifetime_s: float) -> None:
    response.set_cookie(
        _name(scope), text, max_age=int(lifetime_s), path="/", secure=is_secure(scope), httponly=True, samesite="strict"
    )


def drop_cookie(response: Response, scope: Scope) -> None:
    response.delete_cookie(_name(scope), path="/", secure=is_secure(scope), httponly=True, samesite="strict")


def form_token(cookie: str) -> str:
    return hmac.new(cookie.encode(), b"lsi form", hashlib.sha256).hexdigest()


def check_form(scope: Scope, given: str) -> None:
    """Raises ServiceError `forbidden` for a form that is not from a page of this sign-in."""
    check_origin(scope)
    cookie = read_cookie(scope)
    if cookie is None or not hmac.compare_digest(form_token(cookie).encode(), given.encode("utf-8", "replace")):
        raise ServiceError("forbidden", "This form is from another sign-in: load the page again")


def check_origin(scope: Scope) -> None:
    """Raises ServiceError `forbidden` for what another site made the browser send. Programs say nothing of origins."""
    headers = Headers(scope=scope)
    site, origin = headers.get("sec-fetch-site"), headers.get("origin")
    same_host = origin is None or urlsplit(origin).netloc == headers.get("host")
    if not (site in _OURS if site is not None else same_host):
        raise ServiceError("forbidden", "This form came from another site")
