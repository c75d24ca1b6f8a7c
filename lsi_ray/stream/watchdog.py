"""Tells a hung engine from a slow one: a slow one's loop turns, now and then; a hung one's never does again.

The engine answers a ping when its own loop has turned once more, between two steps. So however long the rows take, an
engine is alive as long as single steps end; a row that comes out is a sign of life too.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

_BEAT_S = 5.0


@dataclass(slots=True)
class Traffic:
    """Rows that have gone into the engine and come out."""

    entered: int = 0
    left: int = 0

    @property
    def busy(self) -> bool:
        return self.entered > self.left


async def until_silent(ping: Callable[[], Awaitable[None]], traffic: Traffic, timeout_s: float) -> None:
    """Returns when the engine, with rows in it, has given no sign of life for `timeout_s`; raises what `ping` raises.

    Silence counts only after the first answer, so loading takes what it takes, and in beats of this event loop: one
    that was starved, or a machine that was suspended, has not listened and does not take that for silence.
    """
    beat_s = min(_BEAT_S, timeout_s / 8)
    await ping()
    while True:
        await asyncio.sleep(beat_s)
        if traffic.busy and not await _lives(ping, traffic, math.ceil(timeout_s / beat_s), beat_s):
            return


async def _lives(ping: Callable[[], Awaitable[None]], traffic: Traffic, beats: int, beat_s: float) -> bool:
    left = traffic.left
    asked = asyncio.ensure_future(ping())
    try:
        for _ in range(beats):
            await asyncio.wait({asked}, timeout=beat_s)
            if asked.done():
                await asked
                return True
            if traffic.left > left:
                return True
        return False
    finally:
        asked.cancel()
