"""Replicas that are lost for good: when the ledger is asked to give up on them, and when the session ends."""

from __future__ import annotations

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.stream.lost import Lost
from lsi_ray.stream.ports import SILENT_S

IDLE, WORK = LeaseAnswer((), "idle"), LeaseAnswer((), "wait")


class Scene:
    def __init__(self) -> None:
        self.now = 0.0
        self.holds = 0
        self.asked: list[tuple[int, tuple[str, ...]]] = []
        self.lost = Lost(self._lose, clock=lambda: self.now)

    def _lose(self, session: int, present: object) -> int:
        self.asked.append((session, tuple(present)))  # type: ignore[call-overload]
        return self.holds

    def at(self, now: float, session: int = 1) -> None:
        self.now = now
        self.lost.look(session, lambda: ["here"])


def test_nobody_is_given_up_before_he_could_say_that_he_is_there() -> None:
    scene = Scene()
    scene.at(SILENT_S - 1)
    assert not scene.asked
    for now in (0.0, 5.0, 9.9, 10.0, 12.0):
        scene.at(SILENT_S + now)
    assert scene.asked == [(1, ("here",))] * 2


def test_a_session_without_work_ends_only_where_it_would_wait_for_ever() -> None:
    scene = Scene()
    scene.at(SILENT_S)
    assert scene.lost.check(1, IDLE) is IDLE
    scene.holds = 3
    scene.at(2 * SILENT_S)
    assert scene.lost.check(1, WORK) is WORK
    with pytest.raises(LedgerError) as raised:
        scene.lost.check(1, IDLE)
    assert raised.value.code == "session_over"
    assert scene.lost.check(2, IDLE) is IDLE
