"""No contender prepares rows while its engine starts: they would be done before the clock runs, and not be charged.

lsi and ray.data.llm render ahead by design. In a long run that is a small part of the rows; in a benchmark of some
hundred it was up to half of them (lsi holds 512 rows of T1 and 224 of I1), and rows/s and CPU seconds flattered both.
A first block of each passes, so that what its stages load at their first row is no part of the rate either.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from measure.probe import FOLDER

HELD = "LSI_BENCH_HELD"
"""Set to 1 where rows wait for the engine: not where the start itself is measured."""
_POLL_S = 0.1


def engine_is_up() -> bool:
    """Whether an engine of this run has started (measure/probe.py notes it), or rows need not wait for one."""
    return os.environ.get(HELD) != "1" or any(Path(os.environ[FOLDER]).glob("started-*.txt"))


def wait_for_engine() -> None:
    while not engine_is_up():
        time.sleep(_POLL_S)
