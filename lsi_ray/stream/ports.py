"""What the stages need of the ledger, so that they are plain objects: an actor's client in a cluster."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any, Literal, Protocol

from lsi_ray.ledger.records import Answers, CommitResult, LeaseAnswer, SegmentRef

SILENT_S = 80.0
"""A replica tells the ledger's process every 20 s that it is there; one that has not for so long was killed, and came
back under another name, if at all."""

ReplicaState = Literal["loading", "ready", "restarting", "failed"]


@dataclass(frozen=True, slots=True)
class Replica:
    name: str
    state: ReplicaState
    detail: str
    engine: dict[str, str]
    since: float
    """When it last said so: seconds of the monotonic clock of the ledger's process, which no jump moves."""

    @property
    def actor(self) -> str:
        """As its name says (hung.replica_name)."""
        return self.name.split(":")[-2] if ":" in self.name else self.name


def present(replicas: Iterable[Replica], now: float) -> list[Replica]:
    """Those that have spoken lately; of an actor that Ray has restarted, its last process."""
    last = {replica.actor: replica for replica in sorted(replicas, key=lambda one: one.since)}
    return [replica for replica in last.values() if now - replica.since < SILENT_S]


class StreamLedger(Protocol):
    def lease(self, session: int, max_rows: int, max_outstanding_rows: int, *, request: int) -> LeaseAnswer: ...
    def begin(self, session: int, shard_id: int, replica: str) -> tuple[int, ...] | None: ...
    def commit(self, session: int, segment: SegmentRef, answers: Answers) -> CommitResult: ...
    def crash(self, session: int, shard_ids: tuple[int, ...], reason: str, *, code: str) -> Any: ...
    def release(self, session: int, shard_ids: tuple[int, ...]) -> Any: ...
    def replicas(self) -> Sequence[Replica]: ...
    def note_replica(self, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> None: ...
