"""How fast something has been going: rows and tokens in bins of five seconds, of the last ten minutes with work.

Rows come in bursts, a shard at a time, so that only means over many bins tell a speed: an empty bin between two
commits counts, one in which there was nothing to do does not (`pause`). A speed is a *capacity* only where more rows
were waiting while it was measured: a sample of ten rows, sent first as it should be, says how long ten rows take and
nothing of what the engines can do.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

from lsi_ray.service.backend import Speed

BIN_S = 5.0
_BINS = 120
_RECENT_S = 60.0
_ENOUGH = 6
"""Bins that make a measurement: half a minute."""
_MINUTE = 12
_ROWS_REMEMBERED = 20_000.0
"""About so many rows decide what a row is like; older ones count ever less."""


@dataclass(frozen=True, slots=True)
class Measured:
    """What is worth keeping of a meter. Speeds in tokens/s, prompt and completion together; `capacity` and `replica`,
    of one engine, are None where the engines were never full. The sums are of rows whose weight fades with age."""

    likely: float | None = None
    slow: float | None = None
    capacity: float | None = None
    rows: float = 0.0
    tokens: float = 0.0
    completion: float = 0.0
    replica: float | None = None


@dataclass(slots=True)
class _Bin:
    """`full`: whenever rows ended in it, others were waiting."""

    number: int
    full: bool
    replicas: int
    rows: int = 0
    tokens: int = 0


class Meter:
    """`known`: what an earlier one had measured; it stands until there is enough that is new."""

    def __init__(self, known: Measured | None = None) -> None:
        self._known = known or Measured()
        self._bins: deque[_Bin] = deque(maxlen=_BINS)
        self._paused = True
        self._mutex = threading.Lock()
        self._rows, self._tokens, self._completion = self._known.rows, self._known.tokens, self._known.completion

    def add(
        self, rows: int, tokens: int, now: float, *, completion: int = 0, full: bool = False, replicas: int = 1
    ) -> None:
        """Rows that have ended; `tokens` are all of theirs. `full`: others were waiting. `replicas`: ready ones."""
        with self._mutex:
            self._open_bin(int(now // BIN_S), full, max(replicas, 1))
            bin_ = self._bins[-1]
            bin_.full &= full
            bin_.replicas = max(bin_.replicas, replicas)
            bin_.rows += rows
            bin_.tokens += tokens
            fade = 0.5 if self._rows > _ROWS_REMEMBERED else 1.0
            self._rows = self._rows * fade + rows
            self._tokens = self._tokens * fade + tokens
            self._completion = self._completion * fade + completion

    def pause(self) -> None:
        """There is nothing to do, or no engine to do it: the time until the next rows is nobody's speed."""
        self._paused = True

    def recent(self, now: float) -> Speed | None:
        """Of the last minute, the running bin included; None when nothing has ended in it."""
        first = int((now - _RECENT_S) // BIN_S) + 1
        bins = [one for one in tuple(self._bins) if one.number >= first]
        if not any(one.rows for one in bins):
            return None
        seconds = max(now - bins[0].number * BIN_S, 1.0)
        return Speed(sum(one.rows for one in bins) / seconds, sum(one.tokens for one in bins) / seconds)

    def likely(self) -> float | None:
        """Tokens/s to expect of a batch: what the engines do when they are full, else what they have been doing."""
        if (capacity := self.capacity()) is not None:
            return capacity
        bins = self._whole()
        return _rate(bins) if len(bins) >= _ENOUGH else self._known.likely or _rate(bins)

    def slow(self) -> float | None:
        """Tokens/s of a bad minute; at least a third of what is likely."""
        likely, bins = self.likely(), self._whole()
        if likely is None:
            return None
        if len(bins) < _MINUTE:
            return min(self._known.slow or likely, likely)
        minutes = sorted(_rate(bins[at : at + _MINUTE]) or 0.0 for at in range(0, len(bins) - _MINUTE + 1, _MINUTE))
        return min(likely, max(minutes[len(minutes) // 10], likely / 3))

    def capacity(self) -> float | None:
        """Tokens/s that the engines can do; None while they have never been full for half a minute."""
        bins = [one for one in self._whole() if one.full]
        return _rate(bins) if len(bins) >= _ENOUGH else self._known.capacity

    def replica(self) -> float | None:
        """Tokens/s of one engine among as many as there were; None as for `capacity`."""
        bins = [one for one in self._whole() if one.full]
        if len(bins) < _ENOUGH:
            return self._known.replica
        return sum(one.tokens for one in bins) / (BIN_S * sum(one.replicas for one in bins)) or None

    def tokens_per_row(self) -> float | None:
        return self._tokens / self._rows if self._rows else None

    def completion_per_row(self) -> float | None:
        return self._completion / self._rows if self._rows else None

    def measured(self) -> Measured:
        """For a meter after a restart."""
        sums = self._rows, self._tokens, self._completion
        return Measured(self.likely(), self.slow(), self.capacity(), *sums, self.replica())

    def _open_bin(self, number: int, full: bool, replicas: int) -> None:
        """The bin of now, and those since the last rows, unless there was a pause."""
        last = self._bins[-1].number if self._bins else number - 1
        first = number if self._paused else last + 1
        self._paused = False
        self._bins.extend(_Bin(one, full, replicas) for one in range(max(first, last + 1, number - _BINS), number + 1))

    def _whole(self) -> list[_Bin]:
        """Without the first, which may have begun half way, and the last, which may be running."""
        bins = list(self._bins)
        return bins[1:-1] or bins


def _rate(bins: Sequence[_Bin]) -> float | None:
    return sum(one.tokens for one in bins) / (len(bins) * BIN_S) or None if bins else None
