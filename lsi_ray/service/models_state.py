"""What the service knows of its models beside the ledger: replicas, speed, work at hand. It may all be forgotten."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lsi_ray.ledger.records import Answers, CommitResult
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.turns import urgency
from lsi_ray.ledger.workdir import atomic_write
from lsi_ray.service.admission import Claim, claim
from lsi_ray.service.backend import Waiting
from lsi_ray.service.describe import ModelState
from lsi_ray.service.speed import Meter
from lsi_ray.stream.ports import Replica, ReplicaState

_CLAIMS_S = 2.0
_START_S = 60.0


class Replicas:
    """Of all models; what an engine says of itself is kept in the work dir, for manifests after a restart."""

    def __init__(self, work: Path) -> None:
        self._path = work / "engines.json"
        self._replicas: dict[str, dict[str, Replica]] = {}
        self._engines: dict[str, dict[str, str]] = {}
        if self._path.exists():
            self._engines = msgspec.json.decode(self._path.read_bytes())

    def note(self, model: str, replica: Replica) -> None:
        self._replicas.setdefault(model, {})[replica.name] = replica
        if replica.engine and self._engines.get(model) != replica.engine:
            self._engines[model] = replica.engine
            atomic_write(self._path, msgspec.json.encode(self._engines))

    def forget(self, model: str) -> None:
        self._replicas.pop(model, None)

    def of(self, model: str) -> list[Replica]:
        return list(self._replicas.get(model, {}).values())

    def engine(self, model: str) -> dict[str, str]:
        return self._engines.get(model, {})

    def ready(self, model: str) -> int:
        return sum(replica.state == "ready" for replica in self.of(model))

    def new(self, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> Replica:
        return Replica(name, state, detail, engine, time.time())


class Work:
    """The meters, and the claims of the batches at hand, read from the ledger every two seconds at most."""

    def __init__(self, ledger: ServiceLedger, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._clock = clock
        self._models: dict[str, Meter] = {}
        self._batches: dict[str, Meter] = {}
        self._claims: dict[str, list[Claim]] = {}
        self._queue: list[str] = []
        self._read_at = -_CLAIMS_S

    def meter(self, model: str) -> Meter:
        return self._models.setdefault(model, Meter())

    def batch_meter(self, batch_id: str) -> Meter:
        return self._batches.setdefault(batch_id, Meter())

    def answered(self, model: str, answers: Answers, result: CommitResult) -> int:
        """The tokens of the rows that were taken, about."""
        tokens = sum(answers.prompt_tokens) + sum(answers.completion_tokens)
        tokens = tokens * result.accepted // max(len(answers.positions), 1)
        for meter in (self.meter(model), self.batch_meter(answers.batch_id)):
            meter.add(result.accepted, tokens, self._clock())
        return tokens

    def forget(self, batch_id: str) -> None:
        self._batches.pop(batch_id, None)

    def stale(self) -> None:
        self._read_at = -_CLAIMS_S

    def claims(self, model: str) -> list[Claim]:
        self._refresh()
        return self._claims.get(model, [])

    def position(self, batch_id: str) -> int | None:
        """In the order in which batches come up, of those of its model that wait or run; 0 is the first."""
        self._refresh()
        return self._places.get(batch_id)

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._read_at < _CLAIMS_S:
            return
        self._read_at = now
        claims: dict[str, list[Claim]] = {}
        validating: list[str] = []
        for batch in self._ledger.unfinished():
            if batch.status == BatchStatus.VALIDATING:
                validating.append(batch.batch_id)
            if batch.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS):
                served = self._ledger.served(batch.batch_id)
                claims.setdefault(batch.model, []).append(claim(served, self.meter(batch.model)))
        for model in claims:
            claims[model].sort(key=lambda one: (urgency(one.deadline, now), -one.priority, one.deadline or 0.0))
        self._claims = claims
        self._places = {one.batch_id: place for ordered in claims.values() for place, one in enumerate(ordered)}
        self._places |= {batch_id: place for place, batch_id in enumerate(validating)}

    _places: dict[str, int] = {}  # noqa: RUF012 - replaced as a whole, never changed


def model_state(
    model: str, meter: Meter, replicas: Replicas, *, no_room: bool, failure: str | None, streaming: bool
) -> ModelState:
    if replicas.ready(model):
        return ModelState(meter, 0.0, None)
    if no_room:
        return ModelState(meter, _START_S, Waiting("no_capacity", "waits for GPUs that other models hold"))
    said = [replica.detail for replica in replicas.of(model) if replica.state == "failed"]
    if failure or said:
        return ModelState(meter, _START_S, Waiting("engine_failed", said[-1] if said else failure or ""))
    what = "the engine is loading" if streaming else "the engine is being started"
    return ModelState(meter, _START_S, Waiting("model_loading", what))
