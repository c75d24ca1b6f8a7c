"""Who waits where CPUs are short: the stages around the engine, so that the engine never waits for them.

Rows wait in front of the engine and behind it, so a stage that runs a moment later costs nothing; an engine that does,
costs the accelerator. It matters most while all of them start: each imports vLLM, 8 s of CPU, and the engine's own
start does so three times, one after another.
"""

from __future__ import annotations

import os
from contextlib import suppress
from pathlib import Path

_NICE = 5
"""A third of the weight of the engine's processes. More would starve rendering on a machine that others use too."""


def after_the_engine() -> None:
    """Every thread of this process, and so what it starts from now on, gives way to the engine. Never the reverse: a
    process that was started nicer stays so."""
    for thread in Path("/proc/self/task").iterdir():
        with suppress(ProcessLookupError):  # it has just ended
            number = int(thread.name)
            os.setpriority(os.PRIO_PROCESS, number, max(os.getpriority(os.PRIO_PROCESS, number), _NICE))
