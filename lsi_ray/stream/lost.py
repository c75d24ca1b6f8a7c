"""Replicas that are lost: killed, stopped, or with a node that has gone.

Ray restarts what has died, where it can, and sends it the same shards again. On a cluster that has lost a GPU for good
that day never comes, and the rows would wait for ever beside idle replicas: they are leased to others, and the session,
which cannot end while Ray waits, is ended when it has no work left.

Invariants: nobody is blamed or ended for his silence alone (hung.py looks at his process); nobody is looked for before
those who are there have had the time to say so, counted in this process's own running time.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Collection, Mapping
from typing import Protocol

from lsi_ray.errors import LedgerError, LsiError
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.stream.logs import fields
from lsi_ray.stream.ports import SILENT_S, Replica

log = logging.getLogger(__name__)

_LOOK_S = 10.0
_LATE_S = 30.0
SESSION_OVER = "session_over"


class Holdings(Protocol):
    """Ledger, as far as it is needed here."""

    def holders(self) -> Mapping[int, Collection[str]]: ...
    def lose(self, session: int, gone: Collection[str]) -> int: ...


class Lost:
    """`heard`: replicas that have spoken, of all sessions. `gone`: whether one of a name, silent for so many seconds,
    is known to be gone (hung.Search)."""

    def __init__(
        self,
        ledger: Holdings,
        heard: Callable[[], Collection[Replica]],
        gone: Callable[[str, float], bool],
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._ledger, self._heard, self._gone, self._clock = ledger, heard, gone, clock
        self._began = clock()
        self._look_at = self._began + SILENT_S
        self._sessions: set[int] = set()
        self._spent: set[str] = set()

    def watch(self) -> None:
        """From now on, in a thread."""
        threading.Thread(target=self._watch, name="lost", daemon=True).start()

    def look(self) -> None:
        """Does something every 10 s at most."""
        now = self._clock()
        if now < self._look_at:
            return
        late = now - self._look_at > _LATE_S
        if late:  # this process stood still, and heard nobody meanwhile
            self._began = now
        self._look_at = now + (SILENT_S if late else _LOOK_S)
        if not late:
            self._look(now)

    def _look(self, now: float) -> None:
        silence = {replica.name: now - replica.since for replica in self._heard()}
        held = self._ledger.holders()
        silence |= {name: now - self._began for names in held.values() for name in names if name not in silence}
        gone = {name for name, silent_s in silence.items() if silent_s >= SILENT_S and self._gone(name, silent_s)}
        for session, names in held.items():
            if (gone.intersection(names) or self._stalled(names, gone)) and self._ledger.lose(session, gone):
                log.warning("shards of lost replicas go to the others", extra=fields(session=session, lost=len(gone)))
                self._sessions.add(session)

    def _stalled(self, names: Collection[str], gone: set[str]) -> bool:
        """Nothing runs, though shards are out: they may wait at one who is gone. Once for each, because they may as
        well be on their way, and to take them back over and over would keep them there."""
        if names or gone <= self._spent:
            return False
        self._spent |= gone
        return True

    def _watch(self) -> None:
        while not threading.Event().wait(_LOOK_S / 2):
            try:
                self.look()
            except LsiError as error:  # the ledger's disk: it may get well
                log.warning("%s", error)

    def check(self, session: int, answer: LeaseAnswer) -> LeaseAnswer:
        """Raises LedgerError `session_over` where the stream would wait for Ray without an end."""
        if answer.state == "idle" and session in self._sessions:
            raise LedgerError(
                SESSION_OVER, f"session {session} has no work left, and waits for a replica that was lost"
            )
        return answer
