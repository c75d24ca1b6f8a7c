"""The bounds of the one retry loop, on a clock that only its waits move."""

from __future__ import annotations

import pytest

from lsi_ray.errors import StorageError
from lsi_ray.storage.retry import RetryLoop, RetryPolicy, TransientError


class Clock:
    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now

    def sleep(self, seconds: float) -> None:
        self.now += seconds


@pytest.fixture
def clock():
    return Clock()


def policy(clock: Clock, **more) -> RetryPolicy:
    return RetryPolicy(sleep=clock.sleep, clock=clock, jitter=max, **more)


def failing(times: int, error: Exception, result: str = "done"):
    left = [error] * times

    def attempt() -> str:
        if left:
            raise left.pop()
        return result

    return attempt


FAULT = TransientError("input_unavailable", "try again")


def test_waits_double_up_to_the_longest(clock):
    waits = []
    loop = RetryLoop(policy(clock, attempts=8), lambda _, wait: waits.append(wait))
    assert loop.call(failing(7, FAULT)) == "done"
    assert waits == [1, 2, 4, 8, 16, 30, 30]


def test_attempts_are_bounded(clock):
    with pytest.raises(TransientError):
        RetryLoop(policy(clock, attempts=3)).call(failing(3, FAULT))
    assert clock.now == 3


def test_time_is_bounded_and_not_waited_for_in_vain(clock):
    asked = TransientError("input_unavailable", "later", retry_after=250)
    with pytest.raises(TransientError):
        RetryLoop(policy(clock, attempts=1000, total_s=600)).call(failing(1000, asked))
    assert clock.now == 500


def test_progress_starts_the_count_again_but_not_the_time(clock):
    loop = RetryLoop(policy(clock, attempts=2, total_s=100))
    calls = []

    def cut_after_progress() -> None:
        calls.append(clock.now)
        loop.progressed()
        raise FAULT

    with pytest.raises(TransientError):
        loop.call(cut_after_progress)
    assert 90 <= clock.now <= 100
    assert len(calls) > 50


@pytest.mark.parametrize("error", [StorageError("input_forbidden", "no"), ValueError("bug"), OSError(28, "full")])
def test_anything_else_passes_at_once(clock, error):
    with pytest.raises(type(error)):
        RetryLoop(policy(clock)).call(failing(1, error))
    assert clock.now == 0
