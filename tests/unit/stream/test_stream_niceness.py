"""Stages give way to the engine: with all their threads, and with what they start."""

from __future__ import annotations

import subprocess
import sys

_SHOW = """
import os, threading, subprocess, sys
started, end = threading.Event(), threading.Event()
thread = threading.Thread(target=lambda: (started.set(), end.wait()))
thread.start()
started.wait()
os.nice(int(sys.argv[1]))  # of the main thread alone
from lsi_ray.stream.niceness import after_the_engine
after_the_engine()
child = "import os; print(os.getpriority(os.PRIO_PROCESS, 0))"
print(os.getpriority(os.PRIO_PROCESS, 0), os.getpriority(os.PRIO_PROCESS, thread.native_id), flush=True)
subprocess.run([sys.executable, "-c", child])
end.set()
"""


def _shown(nicer: int) -> list[int]:
    done = subprocess.run([sys.executable, "-c", _SHOW, str(nicer)], capture_output=True, text=True, check=True)
    return [int(word) for word in done.stdout.split()]


def test_all_threads_and_children_give_way() -> None:
    main, thread, child = _shown(0)
    assert main == thread == child >= 5


def test_what_gives_way_more_stays_so() -> None:
    main, thread, child = _shown(19)
    assert main == child == 19
    assert thread >= 5
