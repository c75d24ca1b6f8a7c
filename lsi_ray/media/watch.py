"""Tells a child that works from one that takes too long or hangs, by its CPU time: a busy machine is no file's fault.

Time is counted in looks, so that a worker that was itself stopped for an hour does not blame its child.
"""

from __future__ import annotations

import os
import time
from pathlib import Path

from lsi_ray.media.limits import DecoderLimits

LOOK_SECONDS = 0.1
_TICKS = os.sysconf("SC_CLK_TCK")
_WORKING = "RD"  # running or runnable, and waiting for a disk


class Watch:
    """Over one job. To be asked at least every LOOK_SECONDS while the child is expected to work."""

    def __init__(self, pid: int, seconds: float, bounds: DecoderLimits) -> None:
        self._stat = Path(f"/proc/{pid}/stat")
        self._seconds = seconds
        self._bounds = bounds
        self._looks = 0
        self._idle = 0
        self._begun: float | None = None
        self._last = -1.0
        self._next = time.monotonic() + LOOK_SECONDS

    def wrong(self) -> str | None:
        """What is wrong, if anything is."""
        if time.monotonic() < self._next:
            return None
        self._next = time.monotonic() + LOOK_SECONDS
        return self._look()

    def _look(self) -> str | None:
        self._looks += 1
        cpu, state = self._usage()
        self._begun = cpu if self._begun is None else self._begun
        self._idle = self._idle + 1 if cpu == self._last and state not in _WORKING else 0
        self._last = cpu
        if cpu - self._begun > self._seconds:
            return f"more than {self._seconds:.2g} s of CPU time"
        wall = max(self._seconds * self._bounds.wall, self._bounds.least_wall_seconds)
        if self._looks * LOOK_SECONDS > wall:
            return f"more than {wall:g} s"
        if self._idle * LOOK_SECONDS >= self._bounds.stall_seconds:
            return f"no progress in {self._bounds.stall_seconds:g} s"
        return None

    def _usage(self) -> tuple[float, str]:
        """CPU seconds so far, and the kernel's letter for the state."""
        try:
            fields = self._stat.read_text().rpartition(")")[2].split()
        except OSError:  # it ended; the socket says so in a moment
            return 0.0, "R"
        return (int(fields[11]) + int(fields[12])) / _TICKS, fields[0]
