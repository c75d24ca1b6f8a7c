"""What the service keeps beside a batch, and its files and tokens: small frozen records that pickle."""

from __future__ import annotations

from dataclasses import dataclass

from lsi_ray.ledger.records import Batch, ErrorCount, NewBatch, Progress


@dataclass(frozen=True, slots=True)
class ServiceState:
    """The part of a served batch that changes. `notice`: what it waits for, for people; `retries`: made of it."""

    archived: bool = False
    notice: str = ""
    warnings: tuple[str, ...] = ()
    output_file_id: str | None = None
    error_file_id: str | None = None
    prompt_bytes: int = 0
    retries: int = 0


@dataclass(frozen=True, slots=True)
class Served:
    """Everything that a view of a batch is made of, read in one transaction."""

    batch: Batch
    progress: Progress
    state: ServiceState
    errors: tuple[ErrorCount, ...]


@dataclass(frozen=True, slots=True)
class Submitted:
    """A batch to create once: `body` is the digest of the request, `key` the caller's Idempotency-Key.

    Without a key the same body within `within_s` is the same batch, unless that one has failed or was cancelled.
    """

    new: NewBatch
    body: str
    key: str | None
    within_s: float
    warnings: tuple[str, ...] = ()
    prompt_bytes: int = 0


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
