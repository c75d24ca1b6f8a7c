"""What the HTTP API asks of the service: one protocol, and the frozen records that cross it.

The API knows HTTP, the two wire forms and the limits of one request; a `Backend` knows batches, files and callers.
Times are seconds since the epoch, durations seconds. URLs and webhook secrets travel in types that do not show them;
the descriptions of URLs in views are already redacted.

Errors: every refusal is an `LsiError` with a code of `api/errors.py`, which holds the one mapping to HTTP. An id that
does not exist and an id of somebody else are the same `not_found`. A backend that cannot answer now (its actor
restarts) raises `unavailable`, which clients repeat.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Generic, Literal, Protocol, TypeVar

from pydantic import SecretStr

from lsi_ray.errors import Finding, LsiError
from lsi_ray.ledger.service_records import Moment, SignIn
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.page_views import ClusterView, SampleRow
from lsi_ray.storage.secret_url import SecretUrl

Surface = Literal["lsi", "openai"]
ResultKind = Literal["output", "error"]
WriteKind = Literal["lsi_writes", "openai_writes"]
"""The fields of `Rates` that limit them."""
Item = TypeVar("Item", covariant=True)

READ, WRITE = "read", "write"
"""The scopes of a token: GET needs `read`, everything else `write`."""


class ServiceError(LsiError):
    """A refusal of the service. `param` names the field at fault; `retry_after_s` says when it may go better."""

    def __init__(
        self, code: str, message: str, *, param: str | None = None, retry_after_s: float | None = None
    ) -> None:
        super().__init__(code, message)
        self.param = param
        self.retry_after_s = retry_after_s


@dataclass(frozen=True, slots=True)
class Caller:
    id: str
    name: str
    scopes: frozenset[str] = frozenset({READ, WRITE})


@dataclass(frozen=True, slots=True)
class Webhook:
    url: SecretUrl
    secret: SecretStr


@dataclass(frozen=True, slots=True)
class Repeat:
    """What makes two requests the same one.

    With a `key`: the same key of the same caller means the same batch, and another `fingerprint` under it is refused
    with `idempotency_conflict`. Without: the same caller and fingerprint within `within_s` mean the same batch, unless
    that one has failed or was cancelled. `fingerprint` is a SHA-256 in hex of the request's body.
    """

    fingerprint: str
    key: str | None = None
    within_s: float = 120.0


@dataclass(frozen=True, slots=True)
class Submission:
    """A request that the API has checked as far as it can alone. Exactly one of `input_url` and `input_file_id` is set.

    Without `output_url` the results become files (`output_file_id`, `error_file_id`) that live
    `output_expires_after_s`. Without `model` the batch's own rows name it.
    """

    surface: Surface
    endpoint: str
    window: str
    window_s: float
    repeat: Repeat
    input_url: SecretUrl | None = None
    input_file_id: str | None = None
    output_url: SecretUrl | None = None
    output_expires_after_s: int | None = None
    model: str | None = None
    metadata: dict[str, str] = field(default_factory=dict)
    priority: int = 0
    store: str | None = None
    webhook: Webhook | None = None
    warnings: tuple[str, ...] = ()
    """Said to the caller again on every view of the batch."""


@dataclass(frozen=True, slots=True)
class Retry:
    """A new batch from a terminal one. None: as it was, if it is kept and good; a window counts anew.

    `failed_only` runs the rows that ended as errors; if the results went to a URL it needs one of another object as
    `output_url`, else the good ones would be overwritten (`output_url_required`).
    """

    repeat: Repeat
    failed_only: bool = False
    input_url: SecretUrl | None = None
    output_url: SecretUrl | None = None
    window: str | None = None
    window_s: float | None = None
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Patch:
    """Changes to a batch that is not terminal; None leaves a field alone. The window counts from the creation."""

    window: str | None = None
    window_s: float | None = None
    priority: int | None = None
    input_url: SecretUrl | None = None
    output_url: SecretUrl | None = None
    warnings: tuple[str, ...] = ()


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


@dataclass(frozen=True, slots=True)
class Speed:
    """Measured over the last while; tokens are prompt and completion together."""

    rows_per_s: float
    tokens_per_s: float


@dataclass(frozen=True, slots=True)
class Eta:
    """When the batch ends, as likely as not (`p50`) and almost surely (`p90`); `at_risk`: p90 is past the deadline."""

    p50: float
    p90: float
    at_risk: bool


NO_SPACE = "no_space"


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why nothing moves: `queued`, `model_loading`, `engine_failed`, `no_capacity` (GPUs), `no_space` (disk),
    `input_url`, `output_url`, `model_not_served`."""

    reason: str
    message: str
    queue_position: int | None = None
    """0 is the next one to run."""


@dataclass(frozen=True, slots=True)
class ErrorCount:
    """How many rows ended with this code, and the message of the first, by row."""

    code: str
    count: int
    message: str
    line: int | None = None
    custom_id: str | None = None


@dataclass(frozen=True, slots=True)
class BatchView:
    """Everything that either wire form shows. `times` says when each status was last entered.

    `accepted`: nothing has looked into the input yet (LSI's first state). `started`: a row of it has been handed out to
    be answered. `input` and `output` describe URLs for people, redacted; for files they are None and the ids are set.
    """

    id: str
    surface: Surface
    account_id: str
    endpoint: str
    status: BatchStatus
    created_at: float
    window: str
    deadline: float
    model: str | None = None
    accepted: bool = False
    started: bool = False
    times: Mapping[str, float] = field(default_factory=dict)
    input: str | None = None
    input_file_id: str | None = None
    output: str | None = None
    output_file_id: str | None = None
    error_file_id: str | None = None
    counts: Counts = Counts()
    usage: Usage = Usage()
    findings: tuple[Finding, ...] = ()
    metadata: Mapping[str, str] = field(default_factory=dict)
    priority: int = 0
    store: str | None = None
    retry_count: int = 0
    retry_of: str | None = None
    """The batch that this one is a retry of."""
    archived: bool = False
    speed: Speed | None = None
    eta: Eta | None = None
    waiting: Waiting | None = None
    error_digest: tuple[ErrorCount, ...] = ()
    warnings: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Result:
    """A finished row: its final line, JSON without the newline."""

    row: int
    kind: ResultKind
    line: bytes


@dataclass(frozen=True, slots=True)
class ModelView:
    id: str
    display_name: str
    created_at: float
    retired_at: float | None = None
    size: str | None = None


@dataclass(frozen=True, slots=True)
class FileView:
    id: str
    bytes: int
    created_at: float
    filename: str
    purpose: str
    status: str = "processed"
    expires_at: float | None = None


@dataclass(slots=True)
class Upload:
    """A file as it arrives. `chunks` is read once, and raises when the request breaks off or turns out wrong: then
    nothing may stay of it. `purpose` and `expires_after_s` are final only when it has ended, because the fields of a
    form come in any order."""

    filename: str
    chunks: AsyncIterator[bytes]
    purpose: str = "batch"
    expires_after_s: int | None = None


@dataclass(frozen=True, slots=True)
class FileContent:
    filename: str
    size: int
    chunks: AsyncIterator[bytes]


@dataclass(frozen=True, slots=True)
class Page(Generic[Item]):
    items: tuple[Item, ...]
    has_more: bool = False


class Backend(Protocol):
    async def authenticate(self, token: str) -> Caller | None: ...

    async def sign_in(self, token: str) -> SignIn | None:
        """For a browser: what its cookie is to hold; None for a token that is not valid."""
        ...

    async def signed_in(self, text: str) -> Caller | None:
        """Who is behind a cookie, while the sign-in and its token are valid."""
        ...

    async def sign_out(self, text: str) -> None: ...

    async def write_wait_s(self, caller: Caller, kind: WriteKind) -> float:
        """0: one more request that changes something is within the caller's rate, and was counted; else how long to
        wait. Exact, however many replicas of the API ask."""
        ...

    async def health(self) -> dict[str, Any]:
        """`status` is "ok" or what is wrong; nothing in it is a secret, it needs no token."""

    async def models(self) -> tuple[ModelView, ...]: ...

    async def submit(self, caller: Caller, submission: Submission) -> tuple[BatchView, bool]:
        """The batch, durable, and whether this call made it. Raises `model_not_found`, `not_found` (of the input
        file), `no_capacity` (the message says which window would do), `too_many_batches`, `idempotency_conflict`."""

    async def get(self, caller: Caller, batch_id: str) -> BatchView: ...

    async def list(
        self, caller: Caller, *, limit: int, offset: int = 0, after_id: str | None = None, archived: bool = False
    ) -> Page[BatchView]:
        """Newest first, of both surfaces. `after_id`: those after this one (`not_found` if there is none such)."""

    async def cancel(self, caller: Caller, batch_id: str) -> BatchView:
        """From any state that is not terminal; `not_cancellable` otherwise. A second time changes nothing."""

    async def retry(self, caller: Caller, batch_id: str, retry: Retry) -> tuple[BatchView, bool]:
        """The new batch and whether this call made it. Raises `not_retryable`, `retry_limit`, `output_url_required`,
        `url_expired` (of a kept URL), `nothing_to_retry`."""

    async def archive(self, caller: Caller, batch_id: str) -> None:
        """Hide a terminal batch from the list; `not_archivable` otherwise."""

    async def patch(self, caller: Caller, batch_id: str, patch: Patch) -> BatchView:
        """Raises `not_patchable` for a terminal batch, `no_capacity` for a window that cannot be kept."""

    def results(self, caller: Caller, batch_id: str, after_row: int) -> AsyncIterator[Result]:
        """The finished rows above `after_row` in row order, up to the first one that is not finished; then it ends.
        Raises before the first item: `not_found`, `results_gone` once the batch's data is erased."""

    async def create_file(self, caller: Caller, upload: Upload) -> FileView: ...

    async def files(
        self, caller: Caller, *, purpose: str | None, limit: int, after_id: str | None, descending: bool = True
    ) -> Page[FileView]: ...

    async def file(self, caller: Caller, file_id: str) -> FileView: ...

    async def file_content(self, caller: Caller, file_id: str) -> FileContent: ...

    async def delete_file(self, caller: Caller, file_id: str) -> None:
        """`file_in_use` while a batch that is not terminal reads it."""

    # -- for the web page

    async def pace(self, caller: Caller, batch_id: str) -> tuple[Moment, ...]:
        """How the batch came along, of which no more than 200 moments are kept."""
        ...

    async def sample(self, caller: Caller, batch_id: str, most: int) -> tuple[SampleRow, ...]:
        """Finished rows, spread over the batch. `results_gone` once the batch's data is erased."""
        ...

    async def thumbnail(self, caller: Caller, batch_id: str, position: int, number: int) -> bytes:
        """A JPEG that we made of a row's image or video; `not_found` where there is none to show."""
        ...

    async def cluster(self) -> ClusterView:
        """Of all callers together; nothing in it names one."""
        ...
