"""What one candidate was measured to do, and how a rate is read off the times at which rows ended.

A batch is long: what counts is the engine's steady state, with rows always waiting. So the clock runs from the end of
the first wave (as many rows as the engine runs at once) to the end of the last whole one: whole waves begin and end at
the same phase, also where rows of one length end together, and neither the ramp nor the drain weighs on candidates
with more rows at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

from lsi_ray.engine.load import Load

_WAVES = 2


@dataclass(frozen=True, slots=True)
class Measurement:
    failure: str | None = None
    rows_per_s: float = 0.0
    prompt_tokens_per_s: float = 0.0
    output_tokens_per_s: float = 0.0
    rows: int = 0
    """That the rates are made of."""
    seconds: float = 0.0
    start_s: float = 0.0
    """Of the engine."""
    render_s: float = 0.0
    """Spent on rendering the sample, which only the first does."""
    gpus: int = 0
    cut: bool = False
    """Ended early: it was far behind."""
    short: bool = False
    """Too few rows ended in the time: ramp and drain are in the rate."""
    load: Load = field(default_factory=Load)
    effective: dict[str, int | float] = field(default_factory=dict)
    """The swept arguments that the engine worked with, its defaults included."""
    engine: dict[str, str] = field(default_factory=dict)

    @property
    def score(self) -> float:
        """Rows per second and GPU: more GPUs per replica are fewer replicas."""
        return self.rows_per_s / max(self.gpus, 1)


class Window(NamedTuple):
    first: int
    """Of the rows by their end: those from `first` up to, not including, `last` count."""
    last: int
    seconds: float
    short: bool


def steady(ends: Sequence[float], begin: float, wave: int) -> Window:
    """The window to count in. `ends`: in order; `begin`: when the first row entered; `wave`: rows run at once."""
    waves = len(ends) // max(wave, 1)
    if waves >= _WAVES:
        last = waves * wave
        return Window(wave, last, ends[last - 1] - ends[wave - 1], False)
    return Window(0, len(ends), ends[-1] - begin if ends else 0.0, True)
