"""What the service knows of its models beside the ledger: replicas, speeds, work at hand.

It may all be forgotten; speeds are kept in the work dir, because admission and ETAs are blind without them.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from pathlib import Path

import msgspec

from lsi_ray.ledger.records import Answers, CommitResult
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import atomic_write
from lsi_ray.service.admission import Claim, claim
from lsi_ray.service.backend import NO_SPACE, Waiting
from lsi_ray.service.deploy import Served
from lsi_ray.service.describe import ModelState
from lsi_ray.service.speed import Measured, Meter
from lsi_ray.stream.ports import Replica, ReplicaState, present

_CLAIMS_S = 2.0
START_S = 60.0


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
        """Those that are there: a killed one says nothing any more."""
        return present(list(self._replicas.get(model, {}).values()), time.monotonic())

    def heard(self) -> list[Replica]:
        """All that ever spoke in the sessions that run."""
        return [replica for replicas in list(self._replicas.values()) for replica in list(replicas.values())]

    def engine(self, model: str) -> dict[str, str]:
        return self._engines.get(model, {})

    def ready(self, model: str) -> int:
        return sum(replica.state == "ready" for replica in self.of(model))

    def new(self, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> Replica:
        return Replica(name, state, detail, engine, time.monotonic())


class _Kept(msgspec.Struct):
    """`config`: a digest of the model's config; a speed of another one says nothing."""

    config: str
    measured: Measured


class Speeds:
    """What was measured of each model, in `<work>/speeds.json`."""

    def __init__(self, work: Path, models: Mapping[str, Served]) -> None:
        self._path = work / "speeds.json"
        self._configs = {model: _digest(served) for model, served in models.items()}
        self._kept: dict[str, _Kept] = {}
        if self._path.exists():
            with suppress(msgspec.MsgspecError):  # of another version: it is measured anew
                self._kept = msgspec.json.decode(self._path.read_bytes(), type=dict[str, _Kept])

    def meter(self, model: str) -> Meter:
        kept = self._kept.get(model)
        return Meter(kept.measured if kept is not None and kept.config == self._configs.get(model) else None)

    def keep(self, meters: Mapping[str, Meter]) -> None:
        """Durable on return; writes only what has changed."""
        found = {
            model: _Kept(self._configs[model], meter.measured())
            for model, meter in meters.items()
            if model in self._configs and meter.tokens_per_row() is not None
        }
        if found != {model: self._kept.get(model) for model in found}:
            self._kept |= found
            atomic_write(self._path, msgspec.json.encode(self._kept))


def _digest(served: Served) -> str:
    return hashlib.sha256(served.config.model_dump_json().encode()).hexdigest()


class Work:
    """The meters, and the claims of the batches at hand, read from the ledger every two seconds at most."""

    def __init__(self, ledger: ServiceLedger, speeds: Speeds, clock: Callable[[], float]) -> None:
        self._ledger = ledger
        self._speeds = speeds
        self._clock = clock
        self._models: dict[str, Meter] = {}
        self._batches: dict[str, Meter] = {}
        self._claims: dict[str, list[Claim]] = {}
        self._places: dict[str, int] = {}
        self._read_at = -_CLAIMS_S

    def meter(self, model: str) -> Meter:
        if model not in self._models:
            self._models.setdefault(model, self._speeds.meter(model))
        return self._models[model]

    def keep_speeds(self) -> None:
        self._speeds.keep(dict(self._models))

    def batch_meter(self, batch_id: str) -> Meter:
        return self._batches.setdefault(batch_id, Meter())

    def answered(self, model: str, answers: Answers, result: CommitResult, *, full: bool, replicas: int = 1) -> None:
        """`full`: rows of the model were waiting; `replicas`: that were ready. Of rows that were not all taken, the
        tokens are counted in part."""
        part = result.accepted / max(len(answers.positions), 1)
        completion = int(sum(answers.completion_tokens) * part)
        tokens = int(sum(answers.prompt_tokens) * part) + completion
        for meter in (self.meter(model), self.batch_meter(answers.batch_id)):
            meter.add(result.accepted, tokens, self._clock(), completion=completion, full=full, replicas=replicas)

    def forget(self, batch_id: str) -> None:
        self._batches.pop(batch_id, None)

    def stale(self) -> None:
        self._read_at = -_CLAIMS_S

    def claims(self, model: str, *, fresh: bool = False) -> list[Claim]:
        """`fresh`: as of now, for decisions."""
        self._refresh(fresh)
        return self._claims.get(model, [])

    def position(self, batch_id: str) -> int | None:
        """In the order in which batches come up, of those of its model that wait or run; 0 is the first."""
        self._refresh()
        return self._places.get(batch_id)

    def _refresh(self, fresh: bool = False) -> None:
        """Threads may do it side by side; each puts whole new tables in the place of the old ones."""
        now = self._clock()
        if not fresh and now - self._read_at < _CLAIMS_S:
            return
        claims: dict[str, list[Claim]] = {}
        validating: list[str] = []
        for load in self._ledger.loads():
            if load.status == BatchStatus.VALIDATING:
                validating.append(load.batch_id)
            claims.setdefault(load.model, []).append(claim(load, self.meter(load.model), now))
        for model in claims:
            claims[model].sort(key=lambda one: (one.turn, one.deadline or 0.0))
        places = {one.batch_id: place for ordered in claims.values() for place, one in enumerate(ordered)}
        places |= {batch_id: place for place, batch_id in enumerate(validating)}
        self._claims, self._places, self._read_at = claims, places, now


def model_state(
    model: str,
    meter: Meter,
    replicas: Replicas,
    *,
    served: bool,
    no_room: bool,
    failure: str | None,
    streaming: bool,
    disk_full: bool = False,
    short_of_gpus: bool = False,
) -> ModelState:
    """`served`: by this deployment; the one that accepted the batch may have been another. `short_of_gpus`: as far as
    the cluster has any, others hold them, whoever they are."""
    if not served:
        return ModelState(meter, START_S, Waiting("model_not_served", f"{model} is not served here any more"))
    if disk_full:
        return ModelState(meter, 0.0, Waiting(NO_SPACE, "the disk of the service is full"))
    if replicas.ready(model):
        return ModelState(meter, 0.0, None)
    if no_room:
        return ModelState(meter, START_S, Waiting("no_capacity", "waits for GPUs that other models hold"))
    said = [replica.detail for replica in replicas.of(model) if replica.state == "failed"]
    if failure or said:
        return ModelState(meter, START_S, Waiting("engine_failed", said[-1] if said else failure or ""))
    if streaming and short_of_gpus and not replicas.of(model):
        return ModelState(meter, START_S, Waiting("model_loading", "waits for GPUs: the cluster has none free"))
    what = "the engine is loading" if streaming else "the engine is being started"
    return ModelState(meter, START_S, Waiting("model_loading", what))
