"""Ctrl-C and SIGTERM, of which none may be lost.

Both raise KeyboardInterrupt in the main thread. Python drops an exception that falls into a `__del__` or a callback of
its garbage collector, and a driver of Ray is full of those: on a busy machine a run went on to its end after Ctrl-C. So
a signal is also remembered, and what waits for long looks.
"""

from __future__ import annotations

import signal
from types import FrameType

_seen: set[int] = set()


def catch_interrupts() -> None:
    """Set the handlers; again, where a library may have set its own."""
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, _interrupt)


def check_interrupts() -> None:
    """Raises KeyboardInterrupt when a signal has come, once for each."""
    if _seen:
        _seen.clear()
        raise KeyboardInterrupt


def _interrupt(number: int, frame: FrameType | None) -> None:  # noqa: ARG001
    _seen.add(number)
    raise KeyboardInterrupt
