from __future__ import annotations

import threading

from lsi_ray.stream.gate import Gate


def test_many_normal_shards_are_inside_together() -> None:
    gate, together = Gate(), threading.Barrier(3, timeout=2)

    def work() -> None:
        with gate.shared():
            together.wait()

    threads = [threading.Thread(target=work) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(timeout=3)
    assert not together.broken


def test_a_suspect_waits_for_the_others_and_holds_newcomers_back() -> None:
    gate, order = Gate(), []
    leave, suspect_inside, suspect_may_go = threading.Event(), threading.Event(), threading.Event()

    def first() -> None:
        with gate.shared():
            leave.wait(2)
            order.append("first left")

    def suspect() -> None:
        with gate.alone():
            order.append("suspect in")
            suspect_inside.set()
            suspect_may_go.wait(2)
            order.append("suspect left")

    def late() -> None:
        with gate.shared():
            order.append("late in")

    threads = [threading.Thread(target=first)]
    threads[0].start()
    while gate._inside == 0:
        pass
    threads.append(threading.Thread(target=suspect))
    threads[1].start()
    while gate._waiting == 0:
        pass
    threads.append(threading.Thread(target=late))
    threads[2].start()
    leave.set()
    assert suspect_inside.wait(2)
    suspect_may_go.set()
    for thread in threads:
        thread.join(timeout=3)
    assert order == ["first left", "suspect in", "suspect left", "late in"]
