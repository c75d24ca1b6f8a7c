"""The fields beyond both contracts, alike on both surfaces but for the form of times."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Generic, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field

from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.wire_names import in_wire_words, wire_name
from lsi_ray.service.backend import BatchView, Waiting
from lsi_ray.service.backend import ErrorCount as ErrorCountView

Time = TypeVar("Time")

# Neither contract has a validating_at.
_TIMED = frozenset(BatchStatus) - {BatchStatus.VALIDATING}


class Outgoing(BaseModel):
    model_config = ConfigDict(frozen=True)


class RequestCounts(Outgoing):
    total: int
    completed: int
    failed: int


class InputTokensDetails(Outgoing):
    cached_tokens: int


class OutputTokensDetails(Outgoing):
    reasoning_tokens: int


class UsageOut(Outgoing):
    """Tokens of the finished rows; `deduplicated` of these share the answer of another, and count as it does."""

    input_tokens: int
    input_tokens_details: InputTokensDetails
    output_tokens: int
    output_tokens_details: OutputTokensDetails
    total_tokens: int
    deduplicated: int


class ProgressOut(Outgoing):
    """Rows that have ended, well or not; speeds over the last while, null before there are any."""

    rows: int
    total_rows: int
    fraction: Annotated[float, Field(ge=0, le=1)]
    tokens: int
    rows_per_second: float | None = None
    tokens_per_second: float | None = None


class EtaOut(Outgoing, Generic[Time]):
    """When the batch ends: as likely as not (`p50`), almost surely (`p90`). `at_risk`: p90 is past the deadline."""

    p50: Time
    p90: Time
    at_risk: bool


class WaitingOut(Outgoing):
    """Why nothing moves now."""

    reason: str
    message: str
    queue_position: int | None = None


class ErrorExample(Outgoing):
    """The first row, in input order, that ended with this code."""

    message: str
    line: int | None = None
    custom_id: str | None = None


class ErrorCount(Outgoing):
    code: str
    count: int
    example: ErrorExample


class BatchError(Outgoing):
    code: str
    message: str
    line: int | None = None
    param: str | None = None


class BatchErrors(Outgoing):
    object: Literal["list"] = "list"
    data: list[BatchError]


class BatchExtras(Outgoing, Generic[Time]):
    usage: UsageOut
    progress: ProgressOut
    eta: EtaOut[Time] | None = None
    waiting: WaitingOut | None = None
    error_digest: list[ErrorCount]
    priority: int
    retry_of: str | None = None
    archived: bool
    warnings: list[str]
    created: bool | None = Field(
        default=None,
        description="In answers to POST: whether this request made the batch, or repeated one that had made it before.",
    )


def iso(at: float) -> datetime:
    return datetime.fromtimestamp(at, UTC)


def counts_of(view: BatchView) -> RequestCounts:
    return RequestCounts(total=view.counts.total, completed=view.counts.completed, failed=view.counts.failed)


def errors_of(view: BatchView) -> BatchErrors | None:
    if not view.findings:
        return None
    data = [
        BatchError(code=f.code, message=in_wire_words(f.message), line=f.line, param=wire_name(f.param))
        for f in view.findings
    ]
    return BatchErrors(data=data)


def extras_of(view: BatchView, time: Callable[[float], Any], created: bool | None) -> dict[str, Any]:
    """Keyword arguments of either Batch: those of BatchExtras, and when it entered its states. `time` writes a time in
    the surface's form."""
    eta = view.eta
    return {
        **{f"{status}_at": time(view.times[status]) for status in _TIMED if status in view.times},
        "usage": _usage(view),
        "progress": _progress(view),
        "eta": EtaOut[Any](p50=time(eta.p50), p90=time(eta.p90), at_risk=eta.at_risk) if eta else None,
        "waiting": _waiting(view.waiting) if view.waiting else None,
        "error_digest": [_error_count(count) for count in view.error_digest],
        "priority": view.priority,
        "retry_of": view.retry_of,
        "archived": view.archived,
        "warnings": [in_wire_words(warning) for warning in view.warnings],
        "created": created,
    }


def _waiting(waiting: Waiting) -> WaitingOut:
    message = in_wire_words(waiting.message)
    return WaitingOut(reason=waiting.reason, message=message, queue_position=waiting.queue_position)


def _usage(view: BatchView) -> UsageOut:
    usage = view.usage
    return UsageOut(
        input_tokens=usage.prompt,
        input_tokens_details=InputTokensDetails(cached_tokens=usage.cached),
        output_tokens=usage.completion,
        output_tokens_details=OutputTokensDetails(reasoning_tokens=0),
        total_tokens=usage.prompt + usage.completion,
        deduplicated=usage.deduplicated,
    )


def _progress(view: BatchView) -> ProgressOut:
    rows, total = view.counts.completed + view.counts.failed, view.counts.total
    return ProgressOut(
        rows=rows,
        total_rows=total,
        fraction=min(1.0, rows / total) if total else 0.0,
        tokens=view.usage.prompt + view.usage.completion,
        rows_per_second=view.speed.rows_per_s if view.speed else None,
        tokens_per_second=view.speed.tokens_per_s if view.speed else None,
    )


def _error_count(view: ErrorCountView) -> ErrorCount:
    example = ErrorExample(message=view.message, line=view.line, custom_id=view.custom_id)
    return ErrorCount(code=view.code, count=view.count, example=example)
