from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

from lsi_ray.cli.interrupts import catch_interrupts, check_interrupts


@pytest.fixture(autouse=True)
def _handlers() -> Iterator[None]:
    before = {number: signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)}
    catch_interrupts()
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


class Swallows:
    """Python drops what is raised in here."""

    def __init__(self, number: int) -> None:
        self.number = number

    def __del__(self) -> None:
        os.kill(os.getpid(), self.number)
        for _ in range(10):  # the handler runs between two bytecodes
            pass


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
def test_a_signal_that_falls_into_a_destructor_is_not_lost(number: int) -> None:
    one = Swallows(number)
    del one  # nothing is raised here

    with pytest.raises(KeyboardInterrupt):
        check_interrupts()
    check_interrupts()


def test_nothing_is_raised_without_a_signal() -> None:
    check_interrupts()
