"""Which candidate to measure next: coordinate descent in steps of two, within a budget of time.

From the config as given, each argument goes up, and where that does not help down, as long as it helps by more than the
noise; then the next argument; again from the first while a round has brought something. What cannot help is left out
(more rows at once where the engine never ran as many as it may). The winner is then measured once more, beside the
given config: the best of many noisy figures is too good by itself.

Invariants: nothing is measured twice before that; a candidate is begun only if, by the slowest so far, it will end in
time; whatever ends the search (time, Ctrl-C), the best so far is known.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, field

from lsi_ray.config import Config
from lsi_ray.errors import EngineError
from lsi_ray.tune.candidate import SEATS, Candidate, Space, remedy
from lsi_ray.tune.measurement import Measurement

NOISE = 0.03
"""Two runs of one config differ by 1 to 3 %: less is no gain."""
_REMEDIES = 3
_FULL = 0.95

Measure = Callable[[Candidate, float], Measurement]
"""A candidate's measurement, in a fresh process. A score that it must not stay far behind: 0 for none."""


@dataclass(slots=True)
class Trial:
    candidate: Candidate
    measurements: list[Measurement]

    @property
    def first(self) -> Measurement:
        return self.measurements[0]

    @property
    def failure(self) -> str | None:
        return self.first.failure

    @property
    def score(self) -> float:
        """Of the last measurement: that of the comparison, which was not chosen for being high. 0 where it failed."""
        return self.measurements[-1].score


@dataclass(slots=True)
class Found:
    """What is known so far; complete at any time."""

    trials: dict[Candidate, Trial] = field(default_factory=dict)
    best: Candidate | None = None
    ended: str = ""
    """Why the search ended, in words."""
    confirmed: bool = False
    """The best and the given one were measured a second time, side by side."""

    @property
    def given(self) -> Trial:
        return self.trials[Candidate()]

    @property
    def gain(self) -> float | None:
        """Of the best over the given config; None where either is missing."""
        if self.best is None or not self.given.score:
            return None
        return self.trials[self.best].score / self.given.score - 1


class Search:
    def __init__(
        self,
        config: Config,
        measure: Measure,
        budget_s: float,
        *,
        gpus: int = 0,
        clock: Callable[[], float] = time.monotonic,
        tell: Callable[[Found, Trial], None] = lambda *_: None,
    ) -> None:
        self._config = config
        self._measure = measure
        self._gpus = gpus
        self._clock = clock
        self._deadline = clock() + budget_s
        self._slowest = 0.0
        self._tell = tell
        self._effective: dict[str, int | float] = {}
        self.found = Found()

    def run(self) -> Found:
        """Raises EngineError when no engine starts with the given config, nor with another share of the memory."""
        found = self.found
        found.best = self._start()
        self._effective = found.trials[found.best].first.effective
        space = Space.of(self._config, self._effective, self._gpus)
        while self._round(space):
            pass
        found.ended = found.ended or "no step of two brings more"
        self._confirm()
        return found

    def _start(self) -> Candidate:
        candidate: Candidate | None = Candidate()
        for _ in range(1 + _REMEDIES):
            assert candidate is not None
            trial = self._try(candidate)
            if trial.failure is None:
                return candidate
            candidate = remedy(candidate, trial.failure, self._effective)
            if candidate is None or candidate in self.found.trials:
                break
        raise EngineError(f"the engine of the given config does not run: {trial.failure}", code="engine_start_failed")

    def _round(self, space: Space) -> bool:
        """Whether any argument brought something, and there is time for more."""
        return any([self._climb(space, name, up=True) or self._climb(space, name, up=False) for name in space.bounds])

    def _climb(self, space: Space, name: str, up: bool) -> bool:
        """Step on in one direction while it pays."""
        found, climbed = self.found, False
        while found.best is not None and not found.ended:
            candidate = space.next(found.best, name, up, self._effective)
            if candidate is None or candidate in found.trials or self._pointless(found.best, name, up):
                break
            if not self._time_for(3 if self.found.best != Candidate() else 1):
                found.ended = "the time was up"
                break
            trial = self._try_with_remedy(candidate)
            if trial.score <= found.trials[found.best].score * (1 + NOISE):
                break
            found.best, climbed = trial.candidate, True
        return climbed

    def _pointless(self, best: Candidate, name: str, up: bool) -> bool:
        """More rows at once, where the KV cache or the rows themselves already bound it."""
        running = self.found.trials[best].first.load.running_max
        return name == SEATS and up and 0 < running < _FULL * best.get(SEATS, self._effective)

    def _try_with_remedy(self, candidate: Candidate) -> Trial:
        trial = self._try(candidate)
        other = remedy(candidate, trial.failure, self._effective) if trial.failure else None
        if other is None or other in self.found.trials or not self._time_for(1):
            return trial
        return self._try(other)

    def _confirm(self) -> None:
        """Raises nothing: without the time for it the first figures stand."""
        found = self.found
        given = Candidate()
        if found.best in (None, given) or found.given.failure is not None or not self._time_for(2):
            return
        assert found.best is not None
        for candidate in (given, found.best):
            again = self._timed(candidate, 0.0)
            found.trials[candidate].measurements.append(again)
            if again.failure is not None:
                found.best, found.ended = given, f"{candidate} failed when it was measured again: {again.failure}"
                return
        found.confirmed = True
        if found.trials[found.best].score <= found.given.score * (1 + NOISE):
            found.best, found.ended = given, "measured again, the best was no better"

    def _try(self, candidate: Candidate) -> Trial:
        best = self.found.trials[self.found.best].score if self.found.best is not None else 0.0
        trial = Trial(candidate, [self._timed(candidate, best)])
        self.found.trials[candidate] = trial
        self._tell(self.found, trial)
        return trial

    def _timed(self, candidate: Candidate, beat: float) -> Measurement:
        begun = self._clock()
        measurement = self._measure(candidate, beat)
        self._slowest = max(self._slowest, self._clock() - begun - measurement.render_s)
        return measurement

    def _time_for(self, candidates: int) -> bool:
        """Two more are kept back for the comparison at the end once there is something to compare."""
        return self._clock() + candidates * self._slowest <= self._deadline
