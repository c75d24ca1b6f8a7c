"""What a caller's schemas may cost a render worker: CPU seconds in an account that rows and time fill.

Each slow schema is bounded by itself; a hundred thousand of them in one batch would still hold a worker for weeks, and
the rows of others behind it. A row with a schema earns what an ordinary one takes to compile (3 to 60 ms with 150,000
tokens), so that a batch with another schema in each row runs; a slow one is paid from the start balance, and when that
is used up only by hundreds of rows, or minutes, for each.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Callable

ROW_EARNS_S = 0.05
SECOND_EARNS_S = 0.1
_CALLERS = 4096


class SchemaBudget:
    """`most_s`: what each caller starts with, and the most it can save."""

    def __init__(self, most_s: float, clock: Callable[[], float] = time.monotonic) -> None:
        self.most_s = most_s
        self._clock = clock
        self._accounts: OrderedDict[str, tuple[float, float]] = OrderedDict()  # balance, and when it was that

    def row(self, caller: str) -> bool:
        """Counts a row with a schema. Whether there is anything left to spend."""
        return self._add(caller, ROW_EARNS_S) > 0

    def spend(self, caller: str, seconds: float) -> None:
        """May overdraw: what a schema costs is known afterwards."""
        self._add(caller, -seconds)

    def _add(self, caller: str, seconds: float) -> float:
        now = self._clock()
        balance, since = self._accounts.pop(caller, (self.most_s, now))
        balance = min(balance + SECOND_EARNS_S * (now - since), self.most_s)
        balance = min(balance + seconds, self.most_s)
        self._accounts[caller] = balance, now
        if len(self._accounts) > _CALLERS:
            self._accounts.popitem(last=False)
        return balance
