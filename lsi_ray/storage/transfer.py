"""What a transfer is bounded by and what it gives back."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from lsi_ray.errors import StorageError
from lsi_ray.storage.guard import PERSONAL, UrlPolicy
from lsi_ray.storage.retry import DEFAULT_RETRY, RetryPolicy

GB = 1024**3
CHUNK = 1 << 20

# What the codes of errors begin with: the location that was read is the input, the one written to is the output.
Side = Literal["input", "output"]


@dataclass(frozen=True, slots=True)
class TransferOptions:
    """How a transfer may behave. `slow_bytes_per_s` over `slow_window_s` counts as a stall, and is tried again on a new
    connection: at 1 KB/s, 5 GB take two months. `whole_s` ends an exchange however it goes.
    `on_retry(error, wait_s)` is told of every fault before the wait."""

    urls: UrlPolicy = PERSONAL
    retry: RetryPolicy = DEFAULT_RETRY
    connect_s: float = 15.0
    silence_s: float = 60.0
    slow_bytes_per_s: float = 1024.0
    slow_window_s: float = 60.0
    whole_s: float | None = None
    on_retry: Callable[[StorageError, float], None] | None = None
    now: Callable[[], float] = time.time


DEFAULT_OPTIONS = TransferOptions()


@dataclass(frozen=True, slots=True)
class Fetched:
    """`sha256` in hex, over all bytes in order."""

    size: int
    sha256: str
    version: str


@dataclass(frozen=True, slots=True)
class Stat:
    """`version` differs when the content does: the ETag, else time and size. `size` is None if nobody says."""

    size: int | None
    version: str


@dataclass(frozen=True, slots=True)
class Uploaded:
    size: int
    etag: str | None
