"""Throughput over time as the geometry of an SVG: steps, each the mean between two moments, and nothing made up.

A batch begins with nothing at the moment its rows began to run. What it has by now, or had at its end, is the last
moment, whether it was noted or not.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from math import ceil, floor, log10

from lsi_ray.ledger.service_records import Moment
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.window import show_duration
from lsi_ray.service.backend import BatchView
from lsi_ray.service.web.show import rate

WIDTH, HEIGHT = 640, 180
_LEFT, _RIGHT, _TOP, _BOTTOM = 72, 10, 12, 28
_TABLE_ROWS = 20
_SHORTEST_S = 1.0


@dataclass(frozen=True, slots=True)
class Step:
    """From one moment to the next, in seconds since the first; `rows` and `tokens` per second."""

    begin: float
    end: float
    rows: float
    tokens: float


@dataclass(frozen=True, slots=True)
class Tick:
    at: float
    text: str


@dataclass(frozen=True, slots=True)
class Chart:
    """`area` is a path of the view box 0 0 WIDTH HEIGHT."""

    area: str
    across: tuple[Tick, ...]
    up: tuple[Tick, ...]
    table: tuple[Step, ...]
    mean: float
    highest: float
    seconds: float
    width: int = WIDTH
    height: int = HEIGHT
    left: int = _LEFT
    right: int = WIDTH - _RIGHT
    floor: int = HEIGHT - _BOTTOM


def chart(view: BatchView, moments: Sequence[Moment], now: float) -> Chart | None:
    """Tokens per second of a batch whose rows have begun to run; None before that."""
    steps = _steps(_whole(view, moments, now))
    if not steps:
        return None
    seconds, highest = steps[-1].end, max(step.tokens for step in steps)
    top = _round_up(highest)
    return Chart(
        area=_path(steps, seconds, top),
        across=tuple(Tick(_x(at, seconds), show_duration(at)) for at in _times(seconds)),
        up=tuple(Tick(_y(top * part / 2, top), rate(top * part / 2)) for part in range(3)),
        table=_table(steps),
        mean=sum(step.tokens * (step.end - step.begin) for step in steps) / seconds,
        highest=highest,
        seconds=seconds,
    )


def _whole(view: BatchView, moments: Sequence[Moment], now: float) -> list[Moment]:
    begun = view.times.get(BatchStatus.IN_PROGRESS)
    if begun is None:
        return []
    over = [view.times[status] for status in (BatchStatus.FINALIZING, BatchStatus.CANCELLING) if status in view.times]
    end = min([now, *(at for at in over if at >= begun)])
    done = view.counts.completed + view.counts.failed
    last = Moment(end, done, view.usage.prompt + view.usage.completion)
    return [Moment(begun, 0, 0), *(one for one in moments if begun < one.at < end), last]


def _steps(moments: Sequence[Moment]) -> list[Step]:
    """Moments closer than a second make no step of their own. Rows may come back when a file of theirs is damaged:
    that is no speed."""
    steps: list[Step] = []
    far = moments[:1]
    for moment in moments[1:]:
        if moment.at - far[-1].at >= _SHORTEST_S or moment is moments[-1]:
            far = [*far, moment]
    for before, after in pairwise(far):
        seconds = after.at - before.at
        if seconds > 0:
            rows, tokens = max(0, after.rows - before.rows), max(0, after.tokens - before.tokens)
            begin, end = before.at - far[0].at, after.at - far[0].at
            steps.append(Step(begin, end, rows / seconds, tokens / seconds))
    return steps


def _table(steps: Sequence[Step]) -> tuple[Step, ...]:
    """The same in a few lines, for who cannot see the picture."""
    every = ceil(len(steps) / _TABLE_ROWS)
    groups = (steps[at : at + every] for at in range(0, len(steps), every))
    return tuple(_mean(group) for group in groups)


def _mean(group: Sequence[Step]) -> Step:
    begin, end = group[0].begin, group[-1].end
    rows = sum(step.rows * (step.end - step.begin) for step in group) / (end - begin)
    tokens = sum(step.tokens * (step.end - step.begin) for step in group) / (end - begin)
    return Step(begin, end, rows, tokens)


def _path(steps: Sequence[Step], seconds: float, top: float) -> str:
    parts = [f"M{_x(0, seconds):.1f} {_y(0, top):.1f}"]
    parts += [
        f"L{_x(step.begin, seconds):.1f} {_y(step.tokens, top):.1f}H{_x(step.end, seconds):.1f}" for step in steps
    ]
    return "".join(parts) + f"V{_y(0, top):.1f}Z"


def _times(seconds: float) -> tuple[float, ...]:
    """Those that are worth a label; a few seconds have no quarters."""
    return tuple(seconds * part / 4 for part in range(5)) if seconds >= 20 else (0.0, seconds)


def _x(at: float, seconds: float) -> float:
    return _LEFT + (WIDTH - _LEFT - _RIGHT) * at / seconds


def _y(value: float, top: float) -> float:
    return HEIGHT - _BOTTOM - (HEIGHT - _TOP - _BOTTOM) * value / top


def _round_up(value: float) -> float:
    """The next of 1, 2, 5, 10, 20, 50, ..."""
    if value <= 0:
        return 1.0
    ten = 10.0 ** floor(log10(value))
    return next(ten * factor for factor in (1, 2, 5, 10) if ten * factor >= value)
