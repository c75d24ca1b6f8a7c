"""How much is in an engine at once."""

from __future__ import annotations

import threading
from contextlib import ExitStack

from lsi_ray.stream.room import Room


def waiting(room: Room, load: float, rank: int, log: list[str], name: str) -> threading.Thread:
    def enter() -> None:
        with room.taken(load, rank):
            log.append(name)
            entered.set()

    entered = threading.Event()
    thread = threading.Thread(target=enter)
    before = len(room._waiting)
    thread.start()
    while len(room._waiting) == before and thread.is_alive():
        entered.wait(0.001)
    return thread


def test_what_does_not_fit_waits_till_a_part_is_given_back() -> None:
    room, log = Room(10), list[str]()
    with room.taken(6, 0) as give_back, room.taken(4, 0):
        thread = waiting(room, 3, 0, log, "late")
        assert log == []
        give_back(2)
        assert thread.is_alive()
        give_back(1)
        thread.join(5)
    assert log == ["late"]


def test_the_smaller_rank_enters_first_and_among_equals_who_came_first() -> None:
    room, log = Room(1), list[str]()
    with room.taken(1, 0):
        threads = [waiting(room, 1, rank, log, name) for name, rank in (("c", 7), ("a", 5), ("b", 5), ("d", 9))]
    for thread in threads:
        thread.join(5)
    assert log == ["a", "b", "c", "d"]


def test_what_is_larger_than_the_room_enters_alone() -> None:
    room, log = Room(4), list[str]()
    with room.taken(100, 0):
        thread = waiting(room, 0.5, 0, log, "small")
        assert log == []
    thread.join(5)
    assert log == ["small"]
    with ExitStack() as inside:
        give_back = [inside.enter_context(room.taken(0.1, 0)) for _ in range(30)]
        for give in give_back:
            give(1.0)  # no more than was taken
        thread = waiting(room, 100, 0, log, "large")
        thread.join(5)
    assert log == ["small", "large"]
