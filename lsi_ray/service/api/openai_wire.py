"""OpenAI's wire form: times in whole seconds since the epoch, every field present, null where there is nothing."""

from __future__ import annotations

from typing import Any, Literal

from lsi_ray.service.api.fields import (
    Endpoint,
    FileId,
    Incoming,
    Metadata,
    ModelId,
    OutputExpiry,
    Priority,
    WebhookIn,
    Window,
)
from lsi_ray.service.api.views import BatchErrors, BatchExtras, Outgoing, RequestCounts, counts_of, errors_of, extras_of
from lsi_ray.service.backend import BatchView, FileView, ModelView, Page

Status = Literal["validating", "failed", "in_progress", "finalizing", "completed", "expired", "cancelling", "cancelled"]


class BatchRequest(Incoming):
    input_file_id: FileId
    endpoint: Endpoint
    completion_window: Window
    metadata: Metadata | None = None
    output_expires_after: OutputExpiry | None = None
    model: ModelId | None = None
    model_id: ModelId | None = None
    """LSI's name of `model`."""
    store: Literal["s3"] | None = None
    priority: Priority = 0
    webhook: WebhookIn | None = None


class Batch(BatchExtras[int]):
    id: str
    object: Literal["batch"] = "batch"
    endpoint: str
    model: str | None
    errors: BatchErrors | None
    input_file_id: str
    """The redacted URL, for a batch whose input is not one of our files."""
    completion_window: str
    status: Status
    output_file_id: str | None
    error_file_id: str | None
    created_at: int
    in_progress_at: int | None = None
    expires_at: int
    finalizing_at: int | None = None
    completed_at: int | None = None
    failed_at: int | None = None
    expired_at: int | None = None
    cancelling_at: int | None = None
    cancelled_at: int | None = None
    request_counts: RequestCounts
    metadata: dict[str, str]
    retry_count: int


class BatchList(Outgoing):
    object: Literal["list"] = "list"
    data: list[Batch]
    first_id: str | None
    last_id: str | None
    has_more: bool


class File(Outgoing):
    id: str
    object: Literal["file"] = "file"
    bytes: int
    created_at: int
    filename: str
    purpose: Literal["batch", "batch_output"]
    status: Literal["uploaded", "processed", "error"]
    expires_at: int | None


class FileList(Outgoing):
    object: Literal["list"] = "list"
    data: list[File]
    first_id: str | None
    last_id: str | None
    has_more: bool


class FileDeleted(Outgoing):
    id: str
    object: Literal["file"] = "file"
    deleted: Literal[True] = True


class Model(Outgoing):
    id: str
    object: Literal["model"] = "model"
    created: int
    owned_by: str


class ModelList(Outgoing):
    object: Literal["list"] = "list"
    data: list[Model]


def batch_of(view: BatchView, created: bool | None = None) -> Batch:
    return Batch(
        **extras_of(view, int, created),
        id=view.id,
        endpoint=view.endpoint,
        model=view.model,
        errors=errors_of(view),
        input_file_id=view.input_file_id or view.input or "",
        completion_window=view.window,
        status=view.status.value,
        output_file_id=view.output_file_id,
        error_file_id=view.error_file_id,
        created_at=int(view.created_at),
        expires_at=int(view.deadline),
        request_counts=counts_of(view),
        metadata=dict(view.metadata),
        retry_count=view.retry_count,
    )


def batches_of(page: Page[BatchView]) -> BatchList:
    data = [batch_of(view) for view in page.items]
    return BatchList(data=data, has_more=page.has_more, **_ends([batch.id for batch in data]))


def file_of(view: FileView) -> File:
    return File.model_validate(
        {
            "id": view.id,
            "bytes": view.bytes,
            "created_at": int(view.created_at),
            "filename": view.filename,
            "purpose": view.purpose,
            "status": view.status,
            "expires_at": None if view.expires_at is None else int(view.expires_at),
        }
    )


def files_of(page: Page[FileView]) -> FileList:
    data = [file_of(view) for view in page.items]
    return FileList(data=data, has_more=page.has_more, **_ends([file.id for file in data]))


def models_of(views: tuple[ModelView, ...]) -> ModelList:
    served = [view for view in views if view.retired_at is None]
    return ModelList(data=[Model(id=v.id, created=int(v.created_at), owned_by="lsi-ray") for v in served])


def _ends(ids: list[str]) -> dict[str, Any]:
    return {"first_id": ids[0] if ids else None, "last_id": ids[-1] if ids else None}
