from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable

import pytest

from lsi_ray.errors import EngineError
from lsi_ray.stream.watchdog import Traffic, until_silent

Ping = Callable[[], Awaitable[None]]


async def never() -> None:
    await asyncio.Event().wait()


def scripted(*pings: Ping) -> Ping:
    """Each once, the last for ever."""
    left = list(pings)

    async def ping() -> None:
        await (left.pop(0) if len(left) > 1 else left[0])()

    return ping


async def at_once() -> None:
    return


async def ended(ping: Ping, traffic: Traffic, within_s: float) -> bool:
    """Whether it calls the engine silent in this time, with a timeout of 80 ms."""
    try:
        await asyncio.wait_for(until_silent(ping, traffic, 0.08), within_s)
    except TimeoutError:
        return False
    return True


def test_an_engine_that_answers_no_more_is_silent() -> None:
    assert asyncio.run(ended(scripted(at_once, at_once, never), Traffic(entered=1), 1.0))


def test_an_engine_that_answers_each_time_late_is_only_slow() -> None:
    async def late() -> None:
        await asyncio.sleep(0.05)

    assert not asyncio.run(ended(late, Traffic(entered=1), 0.4))


def test_an_engine_without_rows_is_left_alone() -> None:
    assert not asyncio.run(ended(scripted(at_once, never), Traffic(), 0.3))


def test_loading_takes_what_it_takes() -> None:
    assert not asyncio.run(ended(never, Traffic(entered=1), 0.3))


def test_rows_that_come_out_are_a_sign_of_life() -> None:
    async def run() -> bool:
        traffic = Traffic(entered=100)
        task = asyncio.create_task(ended(scripted(at_once, never), traffic, 0.4))
        while not task.done():
            await asyncio.sleep(0.02)
            traffic.left += 1
        return await task

    assert not asyncio.run(run())


def test_a_dead_engine_is_not_a_hung_one() -> None:
    async def dead() -> None:
        raise EngineError("gone")

    with pytest.raises(EngineError, match="gone"):
        asyncio.run(ended(scripted(at_once, dead), Traffic(entered=1), 1.0))


def test_a_loop_that_was_starved_does_not_take_that_for_silence() -> None:
    """The machine was suspended, or the process stopped, for longer than the timeout; the engine answers after it."""
    import time

    async def run() -> bool:
        async def slow() -> None:
            await asyncio.sleep(0.03)

        task = asyncio.create_task(ended(slow, Traffic(entered=1), 1.0))
        for _ in range(3):
            await asyncio.sleep(0.02)
            time.sleep(0.12)
        await asyncio.sleep(0.02)
        over = task.done()
        task.cancel()
        return over

    assert not asyncio.run(run())
