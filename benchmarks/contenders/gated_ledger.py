"""The ledger's actor, which leases no second shard before the engine is up (gate.py). Apart, as it imports Ray."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from contenders.gate import engine_is_up
from lsi_ray.ledger.records import LeaseAnswer
from lsi_ray.stream.ledger_actor import LedgerActor


class GatedLedger(LedgerActor):
    def __init__(self, work: Path) -> None:
        super().__init__(work)
        self._first = True

    def lease(self, session: int, *args: Any, **kwargs: Any) -> LeaseAnswer:
        if engine_is_up():
            return super().lease(session, *args, **kwargs)
        if self._first:
            self._first = False
            return super().lease(session, 1, 1, **kwargs)  # one shard, however large
        return LeaseAnswer((), "wait")
