"""Replicas that are lost: when they are looked for, when the ledger gives up on them, when the session ends."""

from __future__ import annotations

from collections.abc import Collection

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.stream.lost import Lost
from lsi_ray.stream.ports import SILENT_S, Replica, present

IDLE, WORK = LeaseAnswer((), "idle"), LeaseAnswer((), "wait")


class Scene:
    """`held`: who holds what has begun, by session. `asked`: who was looked for, and how long he had been silent."""

    def __init__(self) -> None:
        self.now = 0.0
        self.spoke: dict[str, float] = {}
        self.held: dict[int, set[str]] = {}
        self.gone: set[str] = set()
        self.asked: list[tuple[str, float]] = []
        self.lost: list[tuple[int, set[str]]] = []
        self.watch = Lost(self, self._heard, self._gone, clock=lambda: self.now)

    def holders(self) -> dict[int, set[str]]:
        return self.held

    def lose(self, session: int, gone: Collection[str]) -> int:
        self.lost.append((session, set(gone)))
        self.held[session] -= set(gone)
        return len(gone)

    def until(self, end: float, *speaking: str) -> None:
        while self.now < end:
            self.now += 5
            self.spoke |= dict.fromkeys(speaking, self.now)
            self.watch.look()

    def _heard(self) -> list[Replica]:
        return [Replica(name, "ready", "", {}, since) for name, since in self.spoke.items()]

    def _gone(self, name: str, silent_s: float) -> bool:
        self.asked.append((name, silent_s))
        return name in self.gone


def test_who_is_silent_is_looked_for_and_loses_his_shards_when_he_is_gone() -> None:
    scene = Scene()
    scene.held = {1: {"dead", "slow", "here"}, 2: {"other"}}
    scene.spoke = {"dead": 0.0, "slow": 0.0}
    scene.until(SILENT_S - 5, "here", "other")
    assert not scene.asked
    scene.until(SILENT_S + 5, "here", "other")
    assert {name for name, _ in scene.asked} == {"dead", "slow"}
    assert not scene.lost
    scene.gone = {"dead"}
    scene.until(SILENT_S + 100, "here", "other")
    assert scene.lost == [(1, {"dead"})]
    assert max(silent_s for name, silent_s in scene.asked if name == "slow") > 150


def test_one_that_holds_nothing_is_looked_for_too_and_one_that_a_new_ledger_never_heard_of() -> None:
    """Stopped while it had nothing to do, it takes what it is sent with it; the ledger's process may be a new one."""
    scene = Scene()
    scene.spoke = {"idle": 0.0}
    scene.held = {1: {"before"}}
    scene.until(SILENT_S)
    assert sorted(scene.asked) == [("before", SILENT_S), ("idle", SILENT_S)]


def test_what_may_wait_at_one_who_is_gone_is_taken_back_once_when_nothing_runs() -> None:
    scene = Scene()
    scene.spoke, scene.gone = {"idle": 0.0}, {"idle"}
    scene.held = {1: {"here"}}
    scene.until(SILENT_S + 30, "here")
    assert not scene.lost
    scene.held = {1: set()}
    scene.until(SILENT_S + 100, "here")
    assert scene.lost == [(1, {"idle"})]


def test_nobody_is_looked_for_when_it_was_the_ledger_that_stood_still() -> None:
    scene = Scene()
    scene.held = {1: {"here"}}
    scene.until(200, "here")
    scene.now += 300
    scene.until(scene.now + SILENT_S - 5)
    assert not scene.asked
    scene.until(scene.now + 10)
    assert {name for name, _ in scene.asked} == {"here"}


def test_a_session_without_work_ends_only_where_it_would_wait_for_ever() -> None:
    scene = Scene()
    scene.held = {1: {"dead"}}
    scene.until(SILENT_S)
    assert scene.watch.check(1, IDLE) is IDLE
    scene.gone = {"dead"}
    scene.until(SILENT_S + 10)
    assert scene.watch.check(1, WORK) is WORK
    with pytest.raises(LedgerError) as raised:
        scene.watch.check(1, IDLE)
    assert raised.value.code == "session_over"
    assert scene.watch.check(2, IDLE) is IDLE


def test_who_was_restarted_is_there_once() -> None:
    names = ("node1:7:actor1:a", "node1:9:actor1:b", "node1:8:actor2:c", "node2:7:actor3:d")
    replicas = [
        Replica(name, "ready", "", {}, since) for name, since in zip(names, (90.0, 95.0, 91.0, 10.0), strict=True)
    ]
    assert {replica.name for replica in present(replicas, 100.0)} == {"node1:8:actor2:c", "node1:9:actor1:b"}
