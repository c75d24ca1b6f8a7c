"""How fast something has been going: rows and tokens in bins of five seconds, of the last ten minutes with work."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass

from lsi_ray.service.backend import Speed

BIN_S = 5.0
_BINS = 120
_RECENT_S = 60.0


@dataclass(slots=True)
class _Bin:
    number: int
    rows: int = 0
    tokens: int = 0


class Meter:
    """Bins in which nothing ended are not kept: an idle stream says nothing about its speed."""

    def __init__(self) -> None:
        self._bins: deque[_Bin] = deque(maxlen=_BINS)
        self.rows = 0
        self.tokens = 0

    def add(self, rows: int, tokens: int, now: float) -> None:
        number = int(now // BIN_S)
        if not self._bins or self._bins[-1].number < number:
            self._bins.append(_Bin(number))
        self._bins[-1].rows += rows
        self._bins[-1].tokens += tokens
        self.rows += rows
        self.tokens += tokens

    def recent(self, now: float) -> Speed | None:
        """Of the last minute, the running bin included; None when nothing has ended in it."""
        first = int((now - _RECENT_S) // BIN_S) + 1
        bins = [one for one in tuple(self._bins) if one.number >= first]
        if not bins:
            return None
        seconds = max(now - bins[0].number * BIN_S, 1.0)
        return Speed(sum(one.rows for one in bins) / seconds, sum(one.tokens for one in bins) / seconds)

    def tokens_per_s(self, quantile: float) -> float | None:
        """Of whole bins (the last one may be running, the first half filled), when there are any."""
        bins = tuple(self._bins)
        whole = sorted(one.tokens / BIN_S for one in (bins[1:-1] or bins))
        return whole[int(quantile * (len(whole) - 1))] or None if whole else None

    def tokens_per_row(self) -> float | None:
        return self.tokens / self.rows if self.rows else None
