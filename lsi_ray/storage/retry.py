"""The one retry loop of lsi_ray. Nothing outside storage/ retries I/O.

Only a `TransientError` is tried again: its raiser has decided that the same request may succeed later (a lost
connection, a timeout, a stall, 408, 425, 429, 5xx). Waits grow exponentially with full jitter, so that clients which
failed together do not come back together; a server's Retry-After is the least that is waited. A long transfer that is
cut now and then is not a failing one: `progressed()` starts the count of attempts again, while the bound on time stays.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception_type

from lsi_ray.errors import StorageError

T = TypeVar("T")


class TransientError(StorageError):
    """A fault that may pass. `retry_after`: seconds that the server asked to wait."""

    def __init__(self, code: str, message: str, retry_after: float | None = None) -> None:
        super().__init__(code, message, transient=True)
        self.retry_after = retry_after


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Eight attempts without progress, with waits of up to 1 + 2 + 4 + 8 + 16 + 30 + 30 s, half of that on average."""

    attempts: int = 8
    total_s: float = 6 * 3600
    first_wait_s: float = 1.0
    longest_wait_s: float = 30.0
    longest_retry_after_s: float = 300.0
    sleep: Callable[[float], None] = time.sleep
    clock: Callable[[], float] = time.monotonic
    jitter: Callable[[float, float], float] = random.uniform


DEFAULT_RETRY = RetryPolicy()


class RetryLoop:
    """One operation's attempts. `on_retry(error, wait_s)` is told before each wait."""

    def __init__(self, policy: RetryPolicy, on_retry: Callable[[StorageError, float], None] | None = None) -> None:
        self._policy = policy
        self._on_retry = on_retry
        self._failures = 0  # the running attempt included
        self._deadline = policy.clock() + policy.total_s

    def progressed(self) -> None:
        self._failures = 0

    def call(self, attempt: Callable[[], T]) -> T:
        """Raises the last TransientError when the bounds are reached, and any other error at once."""

        def counted() -> T:
            self._failures += 1
            return attempt()

        retrying = Retrying(
            retry=retry_if_exception_type(TransientError),
            stop=self._exhausted,
            wait=self._wait_s,
            sleep=self._policy.sleep,
            before_sleep=self._tell,
            reraise=True,
        )
        return retrying(counted)

    def _exhausted(self, state: RetryCallState) -> bool:
        wait_ends = self._policy.clock() + state.upcoming_sleep
        return self._failures >= self._policy.attempts or wait_ends > self._deadline

    def _wait_s(self, state: RetryCallState) -> float:
        policy = self._policy
        asked = _error(state).retry_after or 0.0
        ceiling = min(policy.first_wait_s * 2.0 ** max(self._failures - 1, 0), policy.longest_wait_s)
        return max(policy.jitter(0.0, ceiling), min(asked, policy.longest_retry_after_s))

    def _tell(self, state: RetryCallState) -> None:
        if self._on_retry is not None:
            self._on_retry(_error(state), state.upcoming_sleep)


def _error(state: RetryCallState) -> TransientError:
    assert state.outcome is not None
    error = state.outcome.exception()
    assert isinstance(error, TransientError)
    return error
