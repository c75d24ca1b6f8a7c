"""From what the ledger knows of a batch to what callers see of it."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lsi_ray.ledger import records
from lsi_ray.ledger.service_records import Load, Served
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.admission import Claim, claim, eta
from lsi_ray.service.backend import NO_SPACE, BatchView, Counts, ErrorCount, Eta, Speed, Usage, Waiting
from lsi_ray.service.speed import Meter

_LINE = re.compile(r"Line ([1-9][0-9]{0,9}): ")


@dataclass(frozen=True, slots=True)
class ModelState:
    """Of one model: how fast it has been, how long until its engines are up (0: they are), and what is wrong."""

    meter: Meter
    start_s: float
    waiting: Waiting | None


def view(
    served: Served, model: ModelState, others: Sequence[Claim], speed: Speed | None, position: int | None, now: float
) -> BatchView:
    batch, progress, state = served.batch, served.progress, served.state
    options = batch.options
    return BatchView(
        id=batch.batch_id,
        surface=options["surface"],
        account_id=batch.caller,
        endpoint=options["endpoint"],
        status=batch.status,
        created_at=batch.created_at,
        window=batch.window,
        deadline=batch.deadline or 0.0,
        model=batch.model or None,
        accepted=batch.status == BatchStatus.VALIDATING and not state.validation_begun,
        started=progress.rows_begun > 0 or progress.outstanding > 0,
        times=batch.times,
        input=batch.input or None,
        input_file_id=options.get("input_file_id"),
        output=batch.output or None,
        output_file_id=state.output_file_id,
        error_file_id=state.error_file_id,
        counts=Counts(progress.total, progress.completed, progress.failed),
        usage=Usage(progress.prompt_tokens, progress.completion_tokens, progress.cached_tokens, progress.deduplicated),
        findings=batch.findings,
        metadata=batch.metadata,
        priority=batch.priority,
        store=options.get("store"),
        retry_count=options.get("retry_count", 0),
        retry_of=options.get("retry_of"),
        archived=state.archived,
        speed=speed if batch.status == BatchStatus.IN_PROGRESS else None,
        eta=_eta(served, model, others, now),
        waiting=_waiting(served, model, position),
        error_digest=tuple(map(_error_count, served.errors)),
        warnings=state.warnings,
    )


def _error_count(one: records.ErrorCount) -> ErrorCount:
    """Error lines begin with the line of jobs.jsonl they are about (archive/lines.py)."""
    found = _LINE.match(one.message)
    return ErrorCount(one.code, one.rows, one.message, int(found[1]) if found else None, one.custom_id)


def _eta(served: Served, model: ModelState, others: Sequence[Claim], now: float) -> Eta | None:
    """None before validation has counted the work."""
    if served.batch.status not in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS) or not served.state.size.rows:
        return None
    return eta(claim(Load.of(served), model.meter, now), others, model.meter, model.start_s, now)


def _waiting(served: Served, model: ModelState, position: int | None) -> Waiting | None:
    batch, progress, notice = served.batch, served.progress, served.state.notice
    if batch.status.terminal:
        return None
    if notice:
        reason, _, message = notice.partition(": ")
        return Waiting(reason, message, position)
    if batch.status == BatchStatus.VALIDATING:
        accepted = not served.state.validation_begun
        return Waiting("queued", "waits for others to be validated", position) if accepted and position else None
    if batch.status != BatchStatus.IN_PROGRESS:
        return None
    if model.waiting is not None and _stands(served, model.waiting):
        return Waiting(model.waiting.reason, model.waiting.message, position)
    waits = position and not progress.outstanding
    return Waiting("queued", "more urgent batches are running", position) if waits else None


def _stands(served: Served, waiting: Waiting) -> bool:
    """Rows that are out may wait themselves: for the first engine, or for space. Later, a replica of which a service
    that was just restarted has not heard yet may be answering them."""
    progress = served.progress
    return not progress.outstanding or not progress.rows_begun or waiting.reason == NO_SPACE


Describe = Callable[[Served], BatchView]
