"""Replicas that were lost and have not come back: Ray keeps what was sent to one for the day that it does.

On a cluster that has lost a GPU for good that day never comes, and the rows would wait for ever beside idle replicas.
They are leased to others; the session, which cannot end while Ray waits, is ended when it has no work left.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.stream.ports import SILENT_S

_LOOK_S = 10.0
SESSION_OVER = "session_over"


class Lost:
    """`lose`: Ledger.lose. Looks every 10 s, and not before a replica that is there has had the time to say so."""

    def __init__(
        self, lose: Callable[[int, Collection[str]], int], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        self._lose = lose
        self._clock = clock
        self._look_at = clock() + SILENT_S
        self._sessions: set[int] = set()

    def look(self, session: int, present: Callable[[], Collection[str]]) -> None:
        if self._clock() >= self._look_at:
            self._look_at = self._clock() + _LOOK_S
            if self._lose(session, present()):
                self._sessions.add(session)

    def check(self, session: int, answer: LeaseAnswer) -> LeaseAnswer:
        """Raises LedgerError `session_over` where the stream would wait for Ray without an end."""
        if answer.state == "idle" and session in self._sessions:
            raise LedgerError(
                SESSION_OVER, f"session {session} has no work left, and waits for a replica that was lost"
            )
        return answer
