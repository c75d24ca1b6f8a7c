"""From wire to record: windows and priorities are held to their bounds, URLs to their term."""

from __future__ import annotations

from dataclasses import dataclass

from pydantic import SecretStr

from lsi_ray.service.api import lsi_wire, openai_wire
from lsi_ray.service.api.changes import PatchRequest, RetryRequest
from lsi_ray.service.api.fields import WebhookIn
from lsi_ray.service.api.presigned import Term, check_term, read_url
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.service.api.window import check_window, parse_window
from lsi_ray.service.backend import BatchView, Patch, Repeat, Retry, ServiceError, Submission, Webhook
from lsi_ray.storage.secret_url import SecretUrl


@dataclass(frozen=True, slots=True)
class _Urls:
    input: SecretUrl | None
    output: SecretUrl | None
    until: float
    warnings: tuple[str, ...]


def from_lsi(body: lsi_wire.LsiBatchRequest, repeat: Repeat, settings: ApiSettings, now: float) -> Submission:
    window_s = _window_s(body.completion_window, settings)
    term = Term(now, now + window_s, body.completion_window)
    urls = _urls(body.input_file_uri, body.output_file_uri, term, settings)
    ignored = ("price is ignored: there is no market here",) if body.price is not None else ()
    return Submission(
        surface="lsi",
        endpoint=body.endpoint,
        window=body.completion_window,
        window_s=urls.until - now,
        repeat=repeat,
        input_url=urls.input,
        output_url=urls.output,
        model=body.model_id or body.metadata.get("model"),
        metadata=body.metadata,
        priority=_priority(body.priority, settings),
        store=body.store,
        webhook=_webhook(body.webhook, settings),
        warnings=urls.warnings + ignored,
    )


def from_openai(body: openai_wire.BatchRequest, repeat: Repeat, settings: ApiSettings) -> Submission:
    return Submission(
        surface="openai",
        endpoint=body.endpoint,
        window=body.completion_window,
        window_s=_window_s(body.completion_window, settings),
        repeat=repeat,
        input_file_id=body.input_file_id,
        output_expires_after_s=body.output_expires_after.seconds if body.output_expires_after else None,
        model=body.model or body.model_id,
        metadata=body.metadata or {},
        priority=_priority(body.priority, settings),
        store=body.store,
        webhook=_webhook(body.webhook, settings),
    )


def retry_from(body: RetryRequest, view: BatchView, repeat: Repeat, settings: ApiSettings, now: float) -> Retry:
    """The URLs that the batch has already are the backend's to check."""
    window = body.completion_window or view.window
    window_s = _window_s(window, settings) if body.completion_window else parse_window(window)
    urls = _urls(body.input_file_uri, body.output_file_uri, Term(now, now + window_s, window), settings)
    return Retry(repeat, body.failed_only, urls.input, urls.output, window, urls.until - now, urls.warnings)


def patch_from(body: PatchRequest, view: BatchView, settings: ApiSettings, now: float) -> Patch:
    if body == PatchRequest():
        raise ServiceError("invalid_request", "Nothing to change: give completion_window, priority or a URL")
    window_s, until = None, view.deadline
    if body.completion_window is not None:
        window_s = _window_s(body.completion_window, settings)
        until = view.created_at + window_s
        if until <= now:
            raise ServiceError(
                "invalid_value",
                f"a window of {body.completion_window} from the batch's creation has ended already",
                param="completion_window",
            )
    term = Term(now, max(until, now), body.completion_window or view.window)
    urls = _urls(body.input_file_uri, body.output_file_uri, term, settings)
    if window_s is not None:
        window_s -= until - urls.until
    priority = None if body.priority is None else _priority(body.priority, settings)
    return Patch(body.completion_window, window_s, priority, urls.input, urls.output, urls.warnings)


def _window_s(window: str, settings: ApiSettings) -> float:
    try:
        return check_window(window, settings.min_window, settings.max_window)
    except ValueError as error:
        raise ServiceError("invalid_value", f"completion_window: {error}", param="completion_window") from None


def _priority(priority: int, settings: ApiSettings) -> int:
    bound = settings.max_priority
    if not -bound <= priority <= bound:
        raise ServiceError("invalid_value", f"priority: {priority} is not within {-bound} to {bound}", param="priority")
    return priority


def _webhook(webhook: WebhookIn | None, settings: ApiSettings) -> Webhook | None:
    if webhook is None:
        return None
    return Webhook(read_url(webhook.url.get_secret_value(), "webhook.url", settings), webhook.secret)


def _urls(source: SecretStr | None, target: SecretStr | None, term: Term, settings: ApiSettings) -> _Urls:
    found: dict[str, SecretUrl] = {}
    until, warnings = term.until, []
    for field, text in (("input_file_uri", source), ("output_file_uri", target)):
        if text is not None:
            found[field] = read_url(text.get_secret_value(), field, settings)
            end, warning = check_term(found[field], field, term, settings)
            until = min(until, end)
            warnings += [warning] if warning else []
    return _Urls(found.get("input_file_uri"), found.get("output_file_uri"), until, tuple(warnings))
