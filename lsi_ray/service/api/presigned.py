"""URLs are read when they are given: a signature that ends too early is better refused now than found out in 7 days.

A batch needs its URLs until its window ends, and the output's a little longer, for the delivery. Seven days are both
the usual window and the longest signature S3 gives, so that a URL signed a minute before submission always ends a
minute too early: within a small slack the deadline is moved to what the URL can serve, with a warning.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil

from lsi_ray.errors import StorageError
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.api.window import show_duration
from lsi_ray.service.backend import ServiceError
from lsi_ray.storage.guard import check_text
from lsi_ray.storage.secret_url import SecretUrl

MAX_URL_CHARS = 8192


@dataclass(frozen=True, slots=True)
class Term:
    """How long a batch may take: `until` is the end of its window, `window` the text the caller wrote."""

    now: float
    until: float
    window: str

    @property
    def seconds(self) -> float:
        return self.until - self.now

    @property
    def delivery_s(self) -> float:
        """Kept free before the output's URL ends; 5 minutes, less for short windows."""
        return min(300.0, self.seconds / 100)

    @property
    def slack_s(self) -> float:
        return min(3600.0, self.seconds / 20)


def read_url(text: str, field: str, settings: ApiSettings) -> SecretUrl:
    """Without the network. Raises ServiceError `invalid_url` or `destination_not_allowed`."""
    url = SecretUrl(text)
    try:
        check_text(url, settings.url_policy)
    except StorageError as error:
        raise ServiceError(error.code, f"{field}: {error}", param=field) from None
    return url


def check_term(url: SecretUrl, field: str, term: Term, settings: ApiSettings) -> tuple[float, str | None]:
    """When the batch must end to be served by this URL, and what to tell the caller about it.

    Raises ServiceError `url_expired` or `url_ends_early`, unless the settings want a warning instead."""
    ends = url.expires_at
    if ends is None:
        return term.until, None
    serves_until = ends - (term.delivery_s if field.startswith("output") else 0.0)
    if serves_until >= term.until:
        return term.until, None
    if serves_until >= term.until - term.slack_s and serves_until > term.now:
        return serves_until, f"{field} ends at {_iso(ends)}: the window of {term.window} was shortened to fit"
    error = _too_short(field, ends, term)
    if settings.short_urls == "refuse":
        raise error
    return term.until, str(error)


def _too_short(field: str, ends: float, term: Term) -> ServiceError:
    wanted = ceil(term.seconds + term.delivery_s)
    advice = f"sign it again for at least {show_duration(wanted)} (ExpiresIn={wanted})"
    if ends <= term.now:
        ago = show_duration(term.now - ends)
        return ServiceError("url_expired", f"{field} expired at {_iso(ends)}, {ago} ago: {advice}", param=field)
    left, early = show_duration(ends - term.now), show_duration(term.until - ends)
    return ServiceError(
        "url_ends_early",
        f"{field} ends at {_iso(ends)}, in {left}, {early} before the window of {term.window} does: {advice}, "
        "or ask for a shorter completion_window",
        param=field,
    )


def _iso(at: float) -> str:
    return datetime.fromtimestamp(at, UTC).strftime("%Y-%m-%dT%H:%M:%SZ")
