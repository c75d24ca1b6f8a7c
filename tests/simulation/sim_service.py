"""The service of `ServiceActor` without Ray: the same plain objects, put together the same way."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from functools import cache
from pathlib import Path
from typing import Any

from sim_orders import MODELS

from lsi_ray.config import parse_config
from lsi_ray.errors import Finding
from lsi_ray.ledger.records import Answers, Batch, CommitResult, LeaseAnswer, SegmentRef
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import BatchSize
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.capacity import Capacity
from lsi_ray.service.deploy import Deploy, Deployment, ModelSettings, Served
from lsi_ray.service.desk import Desk, sweep
from lsi_ray.service.file_desk import FileDesk
from lsi_ray.service.kept_urls import KeptUrls
from lsi_ray.service.models_state import Speeds, Work
from lsi_ray.service.sizing import Gpus
from lsi_ray.service.supervisor import Finished, Kind, StreamEnd, Streams, Supervisor, Workers
from lsi_ray.service.webhooks import Outbox, poster
from lsi_ray.storage.transfer import DEFAULT_OPTIONS

RESULTS_KEPT_S = 7200.0
WEBHOOK_TRIES_S = 7200.0
URLS_KEPT_S = 600.0


@cache
def deployment(shard_rows: int) -> Deployment:
    engine = {"type": "simulated"}
    models = {
        name: Served(
            parse_config({"model": name, "engine": engine, "shard_rows": shard_rows}, source=name),
            ModelSettings(config=Path("x"), idle_timeout_s=30.0),
        )
        for name in MODELS
    }
    deploy = Deploy.model_validate(
        {
            "models": [{"config": "x"}],
            "api": {"url_schemes": "http"},
            "admission": {"refuse": False},
            "keep": {"results_s": RESULTS_KEPT_S, "webhook_tries_s": WEBHOOK_TRIES_S, "retry_s": URLS_KEPT_S},
        }
    )
    return Deployment(deploy, models)


@dataclass(slots=True)
class Job:
    kind: Kind
    batch_id: str
    process: str


@dataclass(slots=True)
class FakeWorkers:
    """Jobs wait here until the world runs them, each as a process of its own."""

    new_process: Callable[[], str]
    kill: Callable[[str], None]
    waiting: list[Job] = field(default_factory=list)
    jobs: dict[tuple[Kind, str], Job] = field(default_factory=dict)
    ended: list[Finished] = field(default_factory=list)

    def start(self, kind: Kind, batch_id: str) -> None:
        job = self.jobs[kind, batch_id] = Job(kind, batch_id, self.new_process())
        self.waiting.append(job)

    def stop(self, kind: Kind, batch_id: str) -> None:
        if (job := self.jobs.pop((kind, batch_id), None)) is not None:
            self.kill(job.process)
            self.waiting = [other for other in self.waiting if other is not job]

    def running(self) -> frozenset[tuple[Kind, str]]:
        return frozenset(self.jobs)

    def finished(self) -> list[Finished]:
        ended, self.ended = self.ended, []
        return ended

    def end(self, job: Job, finished: Finished) -> None:
        if self.jobs.get((job.kind, job.batch_id)) is job:
            del self.jobs[job.kind, job.batch_id]
            self.ended.append(finished)


class Service(ServiceLedger):
    def __init__(
        self,
        work: WorkDir,
        served: Deployment,
        workers: Workers,
        streams: Streams,
        clock: Callable[[], float],
        ended: Callable[[Batch], None],
        disowned: Callable[[str], None],
    ) -> None:
        """`ended` and `disowned` are told to the checker."""
        self._disowned = disowned
        work.create()
        super().__init__(work.ledger, clock=clock, lock_wait_s=0)
        try:
            self._put_together(work, served, workers, streams, clock, ended)
        except BaseException:
            self.close()
            raise

    def _put_together(
        self,
        work: WorkDir,
        served: Deployment,
        workers: Workers,
        streams: Streams,
        clock: Callable[[], float],
        ended: Callable[[Batch], None],
    ) -> None:
        settings = served.settings
        self._work = Work(self, Speeds(work.path, served.models), clock)
        sweep(work, self, clock())
        options = replace(DEFAULT_OPTIONS, urls=served.urls, now=clock)
        give_up_s = settings.keep.webhook_tries_s
        self.outbox = Outbox(work.path / "webhooks", poster(options), give_up_s=give_up_s, clock=clock)
        self._kept = KeptUrls(work.path, settings.keep.retry_s, clock)
        self._capacity = Capacity(self, settings.admission, self._work, clock)
        self._files_desk = FileDesk(self, work.path, settings.admission.max_file_bytes_per_caller)
        self.supervisor = Supervisor(
            *(self, work, served, workers, streams, self.outbox, self._kept),
            at_hand=self._work,
            clock=clock,
            ended=ended,
        )
        self.desk = Desk(
            self,
            work,
            served,
            describe=lambda found: found,  # type: ignore[arg-type, return-value]
            capacity=self._capacity,
            kept=self._kept,
            changed=self._changed,
            clock=clock,
        )

    def ask(self, name: str, *args: Any) -> Any:
        return getattr(self.desk, name)(*args)

    def ask_files(self, name: str, *args: Any) -> Any:
        return getattr(self._files_desk, name)(*args)

    def weigh(self, batch_id: str, size: BatchSize) -> Finding | None:
        return self._capacity.weigh(batch_id, size)

    def _changed(self, batch_id: str) -> None:
        self._work.stale()
        self.supervisor.poke(batch_id)

    def lease(self, session: int, max_rows: int, max_outstanding_rows: int, *, request: int = 0) -> LeaseAnswer:
        answer = super().lease(session, max_rows, max_outstanding_rows, request=request)
        model = self.session_model(session)
        if answer.state != "idle":
            self.supervisor.busy(model)
            return answer
        return LeaseAnswer((), "wait") if self.supervisor.stays(model) else answer

    def commit(self, session: int, segment: SegmentRef, answers: Answers) -> CommitResult:
        result = super().commit(session, segment, answers)
        if result.accepted:
            model = self.session_model(session)
            self._work.answered(model, answers, result, full=self.has_waiting(model))
            self.supervisor.answered(model)
        return result

    def start_batch(self, *args: Any, **kwargs: Any) -> Batch:
        batch = super().start_batch(*args, **kwargs)
        self._changed(batch.batch_id)
        return batch

    def erase(self, batch_id: str) -> None:
        super().erase(batch_id)
        self._work.forget(batch_id)

    def disown(self, batch_id: str, segment: str) -> int:
        self._disowned(batch_id)
        return super().disown(batch_id, segment)

    def engine_of(self, model: str) -> dict[str, str]:  # noqa: ARG002
        return {"name": "simulated", "version": "1"}


class FakeStreams:
    """The supervisor's hold on streams that outlive the service: `running` are adopted when it starts again."""

    def __init__(self, alive: dict[str, Any], launch: Callable[[str], Any]) -> None:
        self._held = {model: stream for model, stream in alive.items() if stream.failure is None}
        self._launch = launch

    def start(self, model: str, replicas: int) -> None:  # noqa: ARG002 - it has a number of its own
        self._held[model] = self._launch(model)

    def resize(self, model: str, replicas: int) -> None:  # noqa: ARG002
        return

    def running(self) -> dict[str, int]:
        return dict.fromkeys(self._held, 1)

    def gpus(self) -> Gpus:
        return Gpus(0, 0)

    def ended(self) -> list[StreamEnd]:
        over = [model for model, stream in self._held.items() if stream.failure is not None]
        return [StreamEnd(model, self._held.pop(model).failure) for model in over]
