"""What the service answers, as frozen records for callers of `lsi_ray.client`. Times are aware datetimes in UTC."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime
from typing import Any, TypeVar

Record = TypeVar("Record")

TERMINAL = frozenset({"completed", "failed", "expired", "cancelled"})
_TIMES = (
    *("in_progress_at", "finalizing_at", "completed_at", "failed_at"),
    *("expired_at", "cancelling_at", "cancelled_at"),
)


@dataclass(frozen=True, slots=True)
class Counts:
    total: int = 0
    completed: int = 0
    failed: int = 0


@dataclass(frozen=True, slots=True)
class Usage:
    """Tokens; `cached` is a part of `prompt`. `deduplicated`: rows that share the answer of another, whose tokens count
    for each of them."""

    prompt: int = 0
    completion: int = 0
    cached: int = 0
    deduplicated: int = 0

    @property
    def total(self) -> int:
        return self.prompt + self.completion


@dataclass(frozen=True, slots=True)
class Progress:
    rows: int = 0
    total_rows: int = 0
    fraction: float = 0.0
    tokens: int = 0
    rows_per_second: float | None = None
    tokens_per_second: float | None = None


@dataclass(frozen=True, slots=True)
class Eta:
    p50: datetime
    p90: datetime
    at_risk: bool


@dataclass(frozen=True, slots=True)
class Waiting:
    reason: str
    message: str
    queue_position: int | None = None


@dataclass(frozen=True, slots=True)
class BatchError:
    """Why validation refused the batch; `line` counts the lines of jobs.jsonl from 1."""

    code: str
    message: str
    line: int | None = None
    param: str | None = None


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many rows ended with this code, and the first of them."""

    code: str
    count: int
    message: str
    line: int | None = None
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class Batch:
    """`times` holds when it entered its states, by the names of the API (`completed_at`, ...). `created` is set on
    answers to submit and retry: False means that the same request had made the batch before."""

    id: str
    status: str
    endpoint: str
    window: str
    created_at: datetime
    deadline_at: datetime
    model: str | None = None
    counts: Counts = Counts()
    usage: Usage = Usage()
    progress: Progress = Progress()
    eta: Eta | None = None
    waiting: Waiting | None = None
    errors: tuple[BatchError, ...] = ()
    error_digest: tuple[ErrorCount, ...] = ()
    times: Mapping[str, datetime] = field(default_factory=dict)
    input: str | None = None
    output: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    metadata: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    retry_count: int = 0
    retry_of: str | None = None
    archived: bool = False
    warnings: tuple[str, ...] = ()
    created: bool | None = None

    @property
    def done(self) -> bool:
        return self.status in TERMINAL


@dataclass(frozen=True, slots=True)
class Result:
    """A finished row: `line` is its line of output.jsonl, or of error.jsonl if it `failed`."""

    row: int
    failed: bool
    line: dict[str, Any]


@dataclass(frozen=True, slots=True)
class Model:
    id: str
    display_name: str
    retired: bool
    size: str | None = None


@dataclass(frozen=True, slots=True)
class File:
    id: str
    bytes: int
    filename: str
    purpose: str
    created_at: datetime
    expires_at: datetime | None = None


def read_batch(body: Mapping[str, Any]) -> Batch:
    """From either surface."""
    usage, eta, waiting = body["usage"], body.get("eta"), body.get("waiting")
    return Batch(
        id=body["id"],
        status=body["status"],
        endpoint=body["endpoint"],
        window=body["completion_window"],
        created_at=read_time(body["created_at"]),
        deadline_at=read_time(body["expires_at"]),
        model=body.get("model_id") or body.get("model"),
        counts=Counts(**body["request_counts"]),
        usage=Usage(
            usage["input_tokens"],
            usage["output_tokens"],
            usage["input_tokens_details"]["cached_tokens"],
            usage.get("deduplicated", 0),
        ),
        progress=_known(Progress, body["progress"]),
        eta=Eta(read_time(eta["p50"]), read_time(eta["p90"]), eta["at_risk"]) if eta else None,
        waiting=_known(Waiting, waiting) if waiting else None,
        errors=tuple(_known(BatchError, error) for error in (body.get("errors") or {}).get("data", ())),
        error_digest=tuple(_known(ErrorCount, {**entry, **entry["example"]}) for entry in body["error_digest"]),
        times={name: read_time(body[name]) for name in _TIMES if body.get(name) is not None},
        input=body.get("input_file_uri") or body.get("input_file_id"),
        output=body.get("output_file_uri"),
        output_file_id=body.get("output_file_id"),
        error_file_id=body.get("error_file_id"),
        metadata=body["metadata"],
        priority=body["priority"],
        retry_count=body["retry_count"],
        retry_of=body.get("retry_of"),
        archived=body["archived"],
        warnings=tuple(body["warnings"]),
        created=body.get("created"),
    )


def read_file(body: Mapping[str, Any]) -> File:
    expires_at = body.get("expires_at")
    return File(
        id=body["id"],
        bytes=body["bytes"],
        filename=body["filename"],
        purpose=body["purpose"],
        created_at=read_time(body["created_at"]),
        expires_at=None if expires_at is None else read_time(expires_at),
    )


def read_model(body: Mapping[str, Any]) -> Model:
    return _known(Model, body)


def read_time(value: str | int) -> datetime:
    """ISO 8601, or seconds since the epoch."""
    if isinstance(value, str):
        return datetime.fromisoformat(value).astimezone(UTC)
    return datetime.fromtimestamp(value, UTC)


def _known(kind: type[Record], body: Mapping[str, Any]) -> Record:
    """A newer service may say more than this client knows."""
    names = {field.name for field in fields(kind)}  # type: ignore[arg-type]
    return kind(**{name: value for name, value in body.items() if name in names})
