"""What the service keeps beside a batch, and its files and tokens: small frozen records that pickle."""

from __future__ import annotations

from dataclasses import dataclass, field

from lsi_ray.ledger.records import Batch, ErrorCount, NewBatch, Progress
from lsi_ray.ledger.states import BatchStatus


@dataclass(frozen=True, slots=True)
class BatchSize:
    """What validation found a batch to weigh. `prompt_bytes`: of text; `max_tokens`: the most that all its rows may
    give, with the model's limit for a row that names none; `media`: images and videos. `rows` 0: not known yet."""

    rows: int = 0
    prompt_bytes: int = 0
    max_tokens: int = 0
    media: int = 0


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The part of a served batch that changes. `notice`: what it waits for, for people; `retries`: made of it, and of
    those; `validation_begun`: a process has begun to look into its input."""

    archived: bool = False
    notice: str = ""
    warnings: tuple[str, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    retries: int = 0
    validation_begun: bool = False
    size: BatchSize = BatchSize()


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that a view of a batch is made of, read in one transaction."""

    batch: Batch
    progress: Progress
    state: ServiceState
    errors: tuple[ErrorCount, ...]


@dataclass(frozen=True, slots=True)
class Load:
    """What a batch that is validating or running has done and may still need; of all of them, read in one query."""

    batch_id: str
    model: str
    caller: str
    status: BatchStatus
    deadline: float | None
    priority: int
    total: int
    completed: int
    failed: int
    tokens: int
    size: BatchSize

    @classmethod
    def of(cls, served: Served) -> Load:
        batch, progress = served.batch, served.progress
        return cls(
            batch.batch_id,
            batch.model,
            batch.caller,
            batch.status,
            batch.deadline,
            batch.priority,
            progress.total,
            progress.completed,
            progress.failed,
            progress.prompt_tokens + progress.completion_tokens,
            served.state.size,
        )


@dataclass(frozen=True, slots=True)
class Request:
    """What makes two requests the same one: `body` is the digest of the request, `key` the caller's Idempotency-Key.

    Without a key the same body within `within_s` is the same batch, unless that one has failed or was cancelled.
    """

    caller: str
    body: str
    key: str | None
    within_s: float


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch to create once; the caller of `new` is the request's. `retry_root`: the batch that it is a retry of,
    or a retry of a retry of: that one counts it."""

    new: NewBatch
    body: str
    key: str | None
    within_s: float
    warnings: tuple[str, ...] = ()
    retry_root: str | None = None

    @property
    def request(self) -> Request:
        return Request(self.new.caller, self.body, self.key, self.within_s)


@dataclass(frozen=True, slots=True)
class File:
    file_id: str
    owner: str
    filename: str
    bytes: int
    purpose: str
    created_at: float
    expires_at: float | None


@dataclass(frozen=True, slots=True)
class Token:
    """Without the secret, of which only a digest is kept."""

    token_id: str
    caller: str
    name: str
    scopes: tuple[str, ...]
    created_at: float
    expires_at: float | None
    revoked_at: float | None


@dataclass(frozen=True, slots=True)
class SignIn:
    """`text` is the secret that a browser's cookie holds; it is shown this once."""

    text: str = field(repr=False)
    token: Token
    expires_at: float


@dataclass(frozen=True, slots=True)
class Moment:
    """What of a batch had ended, well or not, at a time: rows, and tokens of prompts and completions."""

    at: float
    rows: int
    tokens: int
