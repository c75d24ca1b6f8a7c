from __future__ import annotations

import itertools
from typing import Any

from lsi_ray.ledger.records import Lease, LeaseAnswer
from lsi_ray.stream.leases import leases

WORK = LeaseAnswer((Lease("b", 1, 1, 0, 1, 1, b"\0", False),), "work")
WAIT, IDLE = LeaseAnswer((), "wait"), LeaseAnswer((), "idle")


class Ledger:
    """Answers as told; who asks is a fake clock's only mover."""

    def __init__(self, *answers: LeaseAnswer) -> None:
        self.now = 0.0
        self.asked: list[tuple[float, int]] = []
        self._answers = iter(answers)

    def lease(self, session: int, max_rows: int, max_out: int, *, request: int) -> LeaseAnswer:
        del session, max_rows, max_out
        self.asked.append((self.now, request))
        return next(self._answers)

    def sleep(self, seconds: float) -> None:
        self.now += seconds


def drain(ledger: Any) -> int:
    return len(list(leases(ledger, 1, 64, sleep=ledger.sleep)))


def test_an_idle_stream_asks_twice_a_second_and_sees_work_within_half_a_second() -> None:
    ledger = Ledger(*itertools.repeat(WAIT, 200), WORK, IDLE)
    assert drain(ledger) == 1
    times = [time for time, _ in ledger.asked]
    assert max(after - before for before, after in itertools.pairwise(times)) <= 0.5
    assert sum(10 <= time < 20 for time in times) <= 21


def test_after_work_it_asks_again_soon() -> None:
    ledger = Ledger(*itertools.repeat(WAIT, 50), WORK, WORK, WAIT, WAIT, IDLE)
    drain(ledger)
    work, again, first, second, third = (time for time, _ in ledger.asked[50:])
    assert work == again == first
    assert third - first < 0.2
    assert second - first <= 0.06


def test_every_request_has_a_number_of_its_own() -> None:
    ledger = Ledger(WORK, WAIT, WORK, IDLE)
    assert drain(ledger) == 2
    assert [request for _, request in ledger.asked] == [1, 2, 3, 4]
