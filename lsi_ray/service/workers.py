"""Intakes and deliveries in Ray tasks: processes of their own, that may hang, grow or die without the ledger's."""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError, RayTaskError

from lsi_ray.errors import LsiError
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.delivery_job import deliver_batch
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.intake_job import take_in_batch
from lsi_ray.service.supervisor import Finished, Kind
from lsi_ray.stream.ledger_actor import RemoteLedger, this_node


def run_job(kind: Kind, batch_id: str, work: WorkDir, deployment: Deployment, ledger: RemoteLedger) -> str:
    """What the arguments tell is in no way secret: the URLs are read from the batch's folder."""
    if kind == "intake":
        take_in_batch(batch_id, work, deployment, ledger)
        return "started"
    return deliver_batch(batch_id, work, deployment, ledger)


class RayWorkers:
    def __init__(self, work: WorkDir, deployment: Deployment, service: Any) -> None:
        self._work = work
        # Once, not with every task.
        self._deployment = ray.put(deployment)
        self._ledger = RemoteLedger(service)
        self._jobs: dict[tuple[Kind, str], Any] = {}

    def start(self, kind: Kind, batch_id: str) -> None:
        task = ray.remote(run_job).options(
            name=f"lsi-{kind}", num_cpus=0, max_retries=0, scheduling_strategy=this_node()
        )
        self._jobs[kind, batch_id] = task.remote(kind, batch_id, self._work, self._deployment, self._ledger)

    def stop(self, kind: Kind, batch_id: str) -> None:
        job = self._jobs.pop((kind, batch_id), None)
        if job is not None:
            ray.cancel(job, force=True)

    def running(self) -> frozenset[tuple[Kind, str]]:
        return frozenset(self._jobs)

    def finished(self) -> list[Finished]:
        if not self._jobs:
            return []
        ready, _ = ray.wait(list(self._jobs.values()), num_returns=len(self._jobs), timeout=0)
        done = [key for key, job in self._jobs.items() if job in ready]
        return [_outcome(*key, self._jobs.pop(key)) for key in done]


def _outcome(kind: Kind, batch_id: str, job: Any) -> Finished:
    try:
        return Finished(kind, batch_id, result=ray.get(job))
    except RayTaskError as error:
        if isinstance(error.cause, LsiError):
            return Finished(kind, batch_id, error=error.cause)
        return Finished(kind, batch_id, lost=True, detail=f"{type(error.cause).__name__}: {error.cause}"[:300])
    except RayError as error:
        return Finished(kind, batch_id, lost=True, detail=f"{type(error).__name__}"[:300])
