"""The service in one detached, named actor: the ledger, the supervisor's threads, and what callers ask.

Everything acknowledged is in the work dir before it is acknowledged, so the actor may die at any moment: Ray starts it
again, calls wait for it, and streams that were running go on with their engines.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray

from lsi_ray.errors import Finding, LedgerError, LsiError
from lsi_ray.ledger.records import Answers, Batch, CommitResult, LeaseAnswer, RowFailure, SegmentRef
from lsi_ray.ledger.service_ledger import Accounts, ServiceLedger
from lsi_ray.ledger.service_records import BatchSize, Served, Token
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.api.rates import RateLimiter
from lsi_ray.service.backend import BatchView, Caller, WriteKind
from lsi_ray.service.capacity import Capacity
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.describe import ModelState, view
from lsi_ray.service.desk import Desk, sweep
from lsi_ray.service.ended_rows import EndedRows
from lsi_ray.service.file_desk import FileDesk
from lsi_ray.service.kept_urls import KeptUrls
from lsi_ray.service.metrics import Metrics
from lsi_ray.service.models_state import Replicas, Speeds, Work, model_state
from lsi_ray.service.names import NAMESPACE, SERVICE
from lsi_ray.service.page_desk import PageDesk
from lsi_ray.service.supervisor import Supervisor
from lsi_ray.service.webhooks import AT_ONCE, Outbox, poster
from lsi_ray.space import is_full
from lsi_ray.storage.transfer import DEFAULT_OPTIONS
from lsi_ray.stream.cluster import quiet
from lsi_ray.stream.hung import Search
from lsi_ray.stream.ledger_actor import this_node
from lsi_ray.stream.logs import log_lines
from lsi_ray.stream.lost import Lost
from lsi_ray.stream.ports import ReplicaState

log = logging.getLogger(__name__)

_TICK_S = 0.5
_WEBHOOK_S = 1.0
_MEASURE_S = 10.0
_KEEP_S = 30.0


class ServiceActor(ServiceLedger):
    """Calls of stages, jobs and the API run in threads side by side; the ledger puts them in order."""

    def __init__(self, work: Path, deployment: Deployment) -> None:
        quiet()
        log_lines()
        self._work_dir = WorkDir(work).create()
        super().__init__(self._work_dir.ledger)
        self._deployment = deployment
        self._accounts = Accounts(self._work_dir.ledger)
        self._replicas = Replicas(work)
        self._lost = Lost(self, self._replicas.heard, Search().gone)
        self._lost.watch()
        self._metrics = Metrics()
        self._sessions: dict[int, str] = {}
        self._work = Work(self, Speeds(work, deployment.models), time.time)
        self._writes = RateLimiter(deployment.settings.api.rates, time.monotonic)
        self._wake = threading.Event()
        self._supervisor: Supervisor | None = None
        self._streams: Any = None
        self._short_of_gpus: frozenset[str] = frozenset()
        self._started_at = time.time()
        self._ticked_at = 0.0
        sweep(self._work_dir, self, time.time())
        options = replace(DEFAULT_OPTIONS, urls=deployment.urls)
        self._outbox = Outbox(
            work / "webhooks", poster(options), give_up_s=deployment.settings.keep.webhook_tries_s, clock=time.time
        )
        self._ended_rows = EndedRows(self, self._work_dir, deployment)
        admission = deployment.settings.admission
        self._kept = KeptUrls(work, deployment.settings.keep.retry_s, time.time)
        self._capacity = Capacity(self, admission, self._work, time.time, self._most_replicas)
        self._files_desk = FileDesk(self, work, admission.max_file_bytes_per_caller)
        self._desk = Desk(
            self,
            self._work_dir,
            deployment,
            describe=self._describe,
            capacity=self._capacity,
            kept=self._kept,
            changed=self._changed,
            clock=time.time,
        )
        self._page_desk = PageDesk(
            self,
            self._accounts,
            deployment,
            desk=self._desk,
            replicas=self._replicas,
            model_state=self._model_state,
            clock=time.time,
        )
        for name, run in (("supervisor", self._supervise), *[("webhooks", self._send_webhooks)] * AT_ONCE):
            threading.Thread(target=run, name=name, daemon=True).start()

    # -- the API

    def ask(self, name: str, caller: Caller, *args: Any, **kwargs: Any) -> Any:
        """A method of `Desk`."""
        with _disk_faults():
            return getattr(self._desk, name)(caller, *args, **kwargs)

    def ask_files(self, name: str, caller: Caller, *args: Any, **kwargs: Any) -> Any:
        """A method of `FileDesk`."""
        with _disk_faults():
            return getattr(self._files_desk, name)(caller, *args, **kwargs)

    def ask_page(self, name: str, *args: Any) -> Any:
        """A method of `PageDesk`."""
        with _disk_faults():
            return getattr(self._page_desk, name)(*args)

    def write_wait_s(self, caller: str, kind: WriteKind) -> float:
        """Here, because this is the one place that all replicas share."""
        return self._writes.wait_s(caller, kind)

    def weigh(self, batch_id: str, size: BatchSize) -> Finding | None:
        """Asked by intakes, when a batch has been validated."""
        return self._capacity.weigh(batch_id, size)

    def models(self) -> Any:
        return self._desk.models()

    def check_token(self, text: str) -> Token | None:
        return self._accounts.check(text)

    def result_files(self, caller: Caller, batch_id: str) -> tuple[Served, list[SegmentRef], list[RowFailure]]:
        self._desk.get(caller, batch_id)
        return self.served(batch_id), self.segments(batch_id), self.row_failures(batch_id)

    def health(self) -> dict[str, Any]:
        late = time.time() - self._ticked_at > 30
        models = {
            model: {"replicas": self._replicas.ready(model), "streaming": model in self._streaming()}
            for model in self._deployment.models
        }
        uptime = round(time.time() - self._started_at)
        return {"status": "supervisor_late" if late else "ok", "uptime_s": uptime, "models": models}

    def pid(self) -> int:
        return os.getpid()

    def work_path(self) -> Path:
        return self._work_dir.path

    # -- the streams

    def open_session(self, model: str) -> int:
        session = super().open_session(model)
        self._work.meter(model).pause()
        self._sessions[session] = model
        return session

    def lease(self, session: int, max_rows: int, max_outstanding_rows: int, *, request: int = 0) -> LeaseAnswer:
        """As the ledger's, but a stream without work waits for some as long as its engines are to stay."""
        model = self._model_of(session)
        if self._supervisor is not None:
            if self._supervisor.yields(model):
                return LeaseAnswer((), "idle")
            max_outstanding_rows = self._supervisor.outstanding(model, max_outstanding_rows)
        answer = super().lease(session, max_rows, max_outstanding_rows, request=request)
        if self._supervisor is None:
            return answer if answer.leases else LeaseAnswer((), "wait")
        if answer.state != "idle":
            self._supervisor.busy(model)
            return answer
        self._work.meter(model).pause()
        if self._supervisor.stays(model):
            return LeaseAnswer((), "wait")
        return self._lost.check(session, answer)

    def commit(self, session: int, segment: SegmentRef, answers: Answers) -> CommitResult:
        begun = time.monotonic()
        result = super().commit(session, segment, answers)
        model = self._model_of(session)
        self._metrics.committed(model, answers, result, time.monotonic() - begun)
        if result.accepted:
            ready = self._replicas.ready(model)
            self._work.answered(model, answers, result, full=self.has_waiting(model), replicas=ready)
            if self._supervisor is not None:
                self._supervisor.answered(model)
        if result.batch_finished:
            self._wake.set()
        return result

    def note_replica_of(self, model: str, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> None:
        self._replicas.note(model, self._replicas.new(name, state, detail, engine))

    def forget_replicas_of(self, model: str) -> None:
        self._replicas.forget(model)
        self._work.meter(model).pause()

    def replicas_of(self, model: str) -> Any:
        return self._replicas.of(model)

    def engine_of(self, model: str) -> dict[str, str]:
        return self._replicas.engine(model)

    def start_batch(self, *args: Any, **kwargs: Any) -> Batch:
        batch = super().start_batch(*args, **kwargs)
        self._changed(batch.batch_id)
        return batch

    def erase(self, batch_id: str) -> None:
        super().erase(batch_id)
        self._work.forget(batch_id)

    def _model_of(self, session: int) -> str:
        if session not in self._sessions:
            self._sessions[session] = self.session_model(session)
        return self._sessions[session]

    # -- threads

    def _supervise(self) -> None:
        from lsi_ray.service.streams import RayStreams
        from lsi_ray.service.workers import RayWorkers

        service = _myself()
        workers = RayWorkers(self._work_dir, self._deployment, service)
        self._streams = RayStreams(self._work_dir.path, self._deployment, service)
        self._supervisor = Supervisor(
            self,
            self._work_dir,
            self._deployment,
            workers,
            self._streams,
            self._outbox,
            self._kept,
            at_hand=self._work,
            clock=time.time,
            ended=self._metrics.ended,
            stream_failed=self._metrics.stream_failed,
        )
        measured_at, kept_at = 0.0, time.monotonic()
        while True:
            try:
                self._supervisor.tick()
                if time.monotonic() - measured_at > _MEASURE_S:
                    measured_at = time.monotonic()
                    self._measure()
                if time.monotonic() - kept_at > _KEEP_S:
                    kept_at = time.monotonic()
                    self._work.keep_speeds()
            except Exception:  # the next tick starts from the ledger again; a supervisor that ended would help nobody
                log.exception("the supervisor stumbled")
            self._ticked_at = time.time()
            self._wake.wait(_TICK_S)
            self._wake.clear()

    def _send_webhooks(self) -> None:
        while True:
            try:
                self._outbox.send_due()
            except Exception:  # as above
                log.exception("webhooks stumbled")
            time.sleep(_WEBHOOK_S)

    def _measure(self) -> None:
        self._short_of_gpus = self._streams.short_of_gpus()
        states = ("loading", "ready", "restarting", "failed")
        replicas = [
            (model, state, sum(replica.state == state for replica in self._replicas.of(model)))
            for model in self._deployment.models
            for state in states
        ]
        rows = dict.fromkeys(self._deployment.models, (0, 0)) | self.rows_by_model()
        self._metrics.now(self.count_by_status(), rows, replicas)
        self._page_desk.look()

    def _changed(self, batch_id: str) -> None:
        self._work.stale()
        if self._supervisor is not None:
            self._supervisor.poke(batch_id)
        self._wake.set()

    def _most_replicas(self, model: str) -> int:
        return self._supervisor.most_replicas(model) if self._supervisor is not None else 1

    def _streaming(self) -> frozenset[str]:
        return frozenset(self._streams.running()) if self._streams is not None else frozenset()

    def _model_state(self, model: str) -> ModelState:
        supervisor = self._supervisor
        return model_state(
            model,
            self._work.meter(model),
            self._replicas,
            served=not model or model in self._deployment.models,
            no_room=supervisor is not None and model in supervisor.no_room,
            failure=supervisor.stream_failures.get(model) if supervisor is not None else None,
            disk_full=is_full(self._work_dir.path),
            streaming=model in self._streaming(),
            short_of_gpus=model in self._short_of_gpus,
        )

    def _describe(self, served: Served) -> BatchView:
        model, batch_id, now = served.batch.model, served.batch.batch_id, time.time()
        state = self._model_state(model)
        if served.batch.status.terminal:
            return view(served, state, (), None, None, now)
        speed = self._work.batch_meter(batch_id).recent(now)
        served = self._ended_rows.named(served)
        return view(served, state, self._work.claims(model), speed, self._work.position(batch_id), now)


@contextmanager
def _disk_faults() -> Iterator[None]:
    """A full or broken disk, whoever meets it, is the ledger's own `ledger_io`."""
    try:
        yield
    except OSError as error:
        if isinstance(error, LsiError):
            raise
        raise LedgerError("ledger_io", f"the work dir: {error.strerror or type(error).__name__}") from error


def _myself() -> Any:
    """The handle of this actor, once it has been made: its constructor may still be running."""
    while True:
        try:
            return ray.get_actor(SERVICE, namespace=NAMESPACE)
        except ValueError:
            time.sleep(0.05)


def start_service(work: Path, deployment: Deployment) -> Any:
    """The actor of this cluster, started on this node unless there is one. Ray starts it again when it dies."""
    remote = ray.remote(ServiceActor).options(
        name=SERVICE,
        namespace=NAMESPACE,
        lifetime="detached",
        get_if_exists=True,
        num_cpus=0,
        max_restarts=-1,
        max_task_retries=-1,
        max_concurrency=32,
        scheduling_strategy=this_node(),
    )
    actor = remote.remote(work, deployment)
    ray.get(actor.pid.remote())
    return actor
