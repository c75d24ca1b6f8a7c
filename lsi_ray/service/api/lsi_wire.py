"""LSI's wire form: times in ISO 8601, URLs without their query, optional fields left out. See its schema of 2026-02."""

from __future__ import annotations

from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.fields import Endpoint, Incoming, Metadata, ModelId, Priority, Url, WebhookIn, Window
from lsi_ray.service.api.views import (
    BatchErrors,
    BatchExtras,
    Outgoing,
    RequestCounts,
    counts_of,
    errors_of,
    extras_of,
    iso,
)
from lsi_ray.service.backend import BatchView, ModelView

Status = Literal[
    "accepted",
    "compute_purchased",
    "not_started",
    "started",
    "waiting",
    "validating",
    "in_progress",
    "finalizing",
    "completed",
    "failed",
    "expired",
    "cancelling",
    "cancelled",
    "retrying",
]


STATES = """Where the batch is:

- `accepted`: durable, and nothing has looked into the input yet (of a retry: `retrying`)
- `validating`: the input is fetched and checked; no GPU time is spent before that has ended
- `not_started`: valid, and no row has been handed out yet; `waiting` (the field) says why
- `started`: rows have been handed out, none has ended
- `waiting`: the same, but none is out now; the field `waiting` says why
- `in_progress`: rows have ended
- `finalizing`: all rows have ended or the window has; the output is being delivered
- `cancelling`: as `finalizing`, after a cancel
- `completed`, `failed` (not valid, or not deliverable), `expired`, `cancelled`: the ends

`compute_purchased` never occurs: there is no market here. OpenAI's surface shows `validating` for the first two, and
`in_progress` for the next four."""


class LsiBatchRequest(Incoming):
    input_file_uri: Url
    output_file_uri: Url
    endpoint: Endpoint
    model_id: ModelId | None = None
    """Left out: the rows of the batch name it, or `metadata.model` as in LSI's first version."""
    completion_window: Window
    store: Literal["s3"] = "s3"
    metadata: Metadata = Field(default_factory=dict)
    priority: Priority = 0
    webhook: WebhookIn | None = None
    price: dict[str, Any] | None = Field(
        default=None,
        description="LSI's first version bid a price. Ignored, with a warning.",
        json_schema_extra={"deprecated": True},
    )


class LsiBatch(BatchExtras[datetime]):
    id: str
    account_id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    errors: BatchErrors | None = None
    input_file_uri: str | None = None
    output_file_uri: str | None = None
    completion_window: str
    status: Annotated[Status, Field(description=STATES)]
    created_at: datetime
    in_progress_at: datetime | None = None
    expires_at: datetime | None = None
    finalizing_at: datetime | None = None
    completed_at: datetime | None = None
    failed_at: datetime | None = None
    cancelling_at: datetime | None = None
    expired_at: datetime | None = None
    cancelled_at: datetime | None = None
    request_counts: RequestCounts
    metadata: dict[str, str]
    deadline_at: datetime
    model_id: str | None = None
    retry_count: int
    is_retry: bool
    store: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None


class LsiModel(Outgoing):
    id: str
    display_name: str
    created_at: datetime
    retired_at: datetime | None = None
    retired: bool
    size: str | None = None


def batch_of(view: BatchView, created: bool | None = None) -> LsiBatch:
    return LsiBatch(
        **extras_of(view, iso, created),
        id=view.id,
        account_id=view.account_id,
        endpoint=view.endpoint,
        errors=errors_of(view),
        input_file_uri=view.input or view.input_file_id,
        output_file_uri=view.output,
        completion_window=view.window,
        status=status_of(view),
        created_at=iso(view.created_at),
        expires_at=iso(view.deadline),
        deadline_at=iso(view.deadline),
        request_counts=counts_of(view),
        metadata=dict(view.metadata),
        model_id=view.model,
        retry_count=view.retry_count,
        is_retry=view.retry_of is not None,
        store=view.store,
        output_file_id=view.output_file_id,
        error_file_id=view.error_file_id,
    )


def status_of(view: BatchView) -> Status:
    """LSI's finer words, where they apply; its states of buying compute have no meaning here."""
    if view.status == BatchStatus.VALIDATING and view.accepted:
        return "retrying" if view.retry_of else "accepted"
    if view.status == BatchStatus.IN_PROGRESS and not view.started:
        return "not_started"
    if view.status == BatchStatus.IN_PROGRESS and not view.counts.completed + view.counts.failed:
        return "waiting" if view.waiting else "started"
    return view.status.value


def model_of(view: ModelView) -> LsiModel:
    return LsiModel(
        id=view.id,
        display_name=view.display_name,
        created_at=iso(view.created_at),
        retired_at=None if view.retired_at is None else iso(view.retired_at),
        retired=view.retired_at is not None,
        size=view.size,
    )
