"""Intakes and deliveries in Ray actors: processes of their own, that may hang, grow or die without the ledger's.

Actors and not tasks, because a process that is kept saves its start, 3 s on a busy machine, for every batch. One that
had to be stopped, or has done a hundred jobs, is replaced.
"""

from __future__ import annotations

import errno
from dataclasses import dataclass
from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lsi_ray.errors import LsiError, StorageError
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.delivery_job import deliver_batch
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.intake_job import take_in_batch
from lsi_ray.service.supervisor import Finished, Kind
from lsi_ray.stream.ledger_actor import RemoteLedger, this_node

_JOBS_EACH = 100
_FULL = (errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE)


class JobRunner:
    """What the arguments tell is in no way secret: the URLs are read from the batch's folder."""

    def __init__(self, work: WorkDir, deployment: Deployment, ledger: RemoteLedger) -> None:
        self._given = (work, deployment, ledger)

    def run(self, kind: Kind, batch_id: str) -> str:
        if kind == "intake":
            take_in_batch(batch_id, *self._given)
            return "started"
        return deliver_batch(batch_id, *self._given)


@dataclass(slots=True)
class _Runner:
    actor: Any
    jobs: int = 0


class RayWorkers:
    def __init__(self, work: WorkDir, deployment: Deployment, service: Any) -> None:
        self._given = (work, deployment, RemoteLedger(service))
        self._idle = [self._new()]
        self._jobs: dict[tuple[Kind, str], tuple[Any, _Runner]] = {}

    def start(self, kind: Kind, batch_id: str) -> None:
        runner = self._idle.pop() if self._idle else self._new()
        runner.jobs += 1
        self._jobs[kind, batch_id] = (runner.actor.run.remote(kind, batch_id), runner)

    def stop(self, kind: Kind, batch_id: str) -> None:
        _, runner = self._jobs.pop((kind, batch_id), (None, None))
        if runner is not None:
            ray.kill(runner.actor)

    def running(self) -> frozenset[tuple[Kind, str]]:
        return frozenset(self._jobs)

    def finished(self) -> list[Finished]:
        if not self._jobs:
            return []
        refs = [ref for ref, _ in self._jobs.values()]
        ready, _ = ray.wait(refs, num_returns=len(refs), timeout=0)
        return [self._take(key) for key, (ref, _) in list(self._jobs.items()) if ref in ready]

    def _take(self, key: tuple[Kind, str]) -> Finished:
        ref, runner = self._jobs.pop(key)
        outcome = _outcome(*key, ref)
        if outcome.lost or runner.jobs >= _JOBS_EACH:
            ray.kill(runner.actor)
        else:
            self._idle.append(runner)
        return outcome

    def _new(self) -> _Runner:
        remote = ray.remote(JobRunner).options(num_cpus=0, max_restarts=0, scheduling_strategy=this_node())
        return _Runner(remote.remote(*self._given))


def _outcome(kind: Kind, batch_id: str, job: Any) -> Finished:
    try:
        return Finished(kind, batch_id, result=ray.get(job))
    except RayTaskError as error:
        if isinstance(error.cause, LsiError):
            return Finished(kind, batch_id, error=error.cause)
        if isinstance(error.cause, OSError) and error.cause.errno in _FULL:
            full = StorageError("work_dir_full", f"the service's disk: {error.cause.strerror}", transient=True)
            return Finished(kind, batch_id, error=full)
        return Finished(kind, batch_id, lost=True, detail=f"{type(error.cause).__name__}: {error.cause}"[:300])
    except RayError as error:
        return Finished(kind, batch_id, lost=True, detail=f"{type(error).__name__}"[:300])
