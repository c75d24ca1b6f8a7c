"""What a retry runs on: the URLs that it gives, else those of the batch, as far as they are kept and still good.

A retry of the whole batch may overwrite the batch's own output at the same URL, as LSI's does; one of the failed rows
must not, because the good rows are there.
"""

from __future__ import annotations

import time
from dataclasses import dataclass

from lsi_ray.ledger.records import Batch
from lsi_ray.service.backend import Retry, ServiceError
from lsi_ray.service.private import Private
from lsi_ray.storage.secret_url import SecretUrl

_LEAST_S = 60.0
_DELIVERY_S = 300.0


@dataclass(frozen=True, slots=True)
class Term:
    """When the retry must have ended, and what to say about it."""

    deadline: float
    warnings: tuple[str, ...] = ()


def private_of(batch: Batch, asked: Retry, kept: Private, rows: tuple[int, ...] | None) -> Private:
    """`rows`: of the input, to run; None: all. Raises ServiceError `not_retryable`, `output_url_required`."""
    source = asked.input_url or kept.input_url
    if batch.options.get("input_file_id") and asked.input_url is None:
        source = None
    elif source is None:
        message = f"the input_url of {batch.batch_id} has expired or is not kept any more: give input_url again"
        raise ServiceError("not_retryable", message, param="input_url")
    return Private(source, _target(batch, asked, kept, rows is not None), None, rows)


def _target(batch: Batch, asked: Retry, kept: Private, failed_only: bool) -> SecretUrl | None:
    """None: the results become files, as those of the batch did."""
    if (
        failed_only
        and batch.output
        and (asked.output_url is None or _object(str(asked.output_url)) == _object(batch.output))
    ):
        message = "give another output_url: a retry of the failed rows would overwrite the good ones"
        raise ServiceError("output_url_required", message, param="output_url")
    target = asked.output_url or (kept.output_url if batch.output else None)
    if target is None and batch.output:
        message = f"the output_url of {batch.batch_id} has expired or is not kept any more: give output_url again"
        raise ServiceError("output_url_required", message, param="output_url")
    return target


def _object(redacted: str) -> str:
    """What a URL names, however it is signed."""
    return redacted.partition("?")[0]


def term_of(asked: Retry, private: Private, window_s: float, now: float) -> Term:
    """The window, less what the URLs of the batch do not serve any more; those that are given were checked by the API.
    Raises ServiceError `url_expired` when next to nothing is left."""
    deadline, warnings = now + window_s, []
    margin = min(_DELIVERY_S, window_s / 100)
    for name, given, used, kept_free in (
        ("input_url", asked.input_url, private.input_url, 0.0),
        ("output_url", asked.output_url, private.output_url, margin),
    ):
        if given is not None or used is None or (ends := used.expires_at) is None or ends - kept_free >= deadline:
            continue
        if ends - kept_free < now + _LEAST_S:
            raise ServiceError("url_expired", f"the {name} of the batch ends at {_iso(ends)}: give {name}", param=name)
        deadline = ends - kept_free
        warnings.append(f"the {name} of the batch ends at {_iso(ends)}: the window was shortened to fit")
    return Term(deadline, tuple(warnings))


def _iso(at: float) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at))
