"""What the ledger's process is told of this replica: its state, and again every 20 s that it is still there."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from functools import partial

from lsi_ray.stream.ports import SILENT_S, ReplicaState, StreamLedger

_BEAT_S = 20.0
_COMING_S = 120.0


class Presence:
    """`least`: so many replicas the session begins with; those that are missing have two minutes to appear."""

    def __init__(self, ledger: StreamLedger, name: str, least: int) -> None:
        self._ledger = ledger
        self._name = name
        self._least = least
        self._here_since = time.monotonic()
        self._said = threading.Lock()
        self._say: Callable[[], None] = _nothing
        threading.Thread(target=self._beat, name="presence", daemon=True).start()

    def note(self, state: ReplicaState, detail: str, engine: dict[str, str]) -> None:
        with self._said:
            self._say = partial(self._ledger.note_replica, self._name, state, detail, engine)
            self._say()

    def alone(self) -> bool:
        """Whether no other replica of this session has an engine, or may get one."""
        with self._said:
            self._say()
        replicas = {replica.name: replica for replica in self._ledger.replicas()}
        if len(replicas) < self._least and time.monotonic() - self._here_since < _COMING_S:
            return False
        now = max(replica.since for replica in replicas.values())
        others = (replica for name, replica in replicas.items() if name != self._name)
        return not any(other.state != "failed" and now - other.since < SILENT_S for other in others)

    def _beat(self) -> None:
        while not threading.Event().wait(_BEAT_S):
            try:
                with self._said:
                    self._say()
            except Exception:  # the ledger is being restarted, or has gone: a beat more or less tells nobody anything
                continue


def _nothing() -> None:
    return
