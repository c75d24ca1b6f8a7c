"""What happens next to every batch, decided again and again from the ledger; also which streams run.

A plain object over the ledger: processes, streams and time are given to it. It keeps nothing that a restart may not
forget: what runs, when something may be tried again, and since when a stream is idle.

    validating            an intake, until it starts or refuses the batch
    in_progress           the stream of its model
    finalizing            a delivery, until the output is there; as long as results are kept
    cancelling            the same for a minute at most
    terminal, not erased  the webhook's event, then nothing of the user's stays
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import Literal, Protocol

from lsi_ray.errors import Finding, LedgerError, LsiError, StorageError
from lsi_ray.intake import findings_of
from lsi_ray.ledger.records import Batch
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.backend import NO_SPACE
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.file_store import FileStore
from lsi_ray.service.kept_urls import KeptUrls
from lsi_ray.service.models_state import Work
from lsi_ray.service.private import Private
from lsi_ray.service.retry_times import RetryTimes
from lsi_ray.service.sizer import Sizer
from lsi_ray.service.sizing import Gpus
from lsi_ray.service.webhooks import Outbox

log = logging.getLogger(__name__)

Kind = Literal["intake", "delivery"]
_LOST_INTAKES = 5
_HOUSEKEEPING_S = 60.0


@dataclass(frozen=True, slots=True)
class Finished:
    """A job that has ended. `error`: what it raised; `lost`: its process died, which says nothing about the batch."""

    kind: Kind
    batch_id: str
    result: str = ""
    error: LsiError | None = None
    lost: bool = False
    detail: str = ""


@dataclass(frozen=True, slots=True)
class StreamEnd:
    """`failure`: what ended it early."""

    model: str
    failure: str = ""


class Workers(Protocol):
    def start(self, kind: Kind, batch_id: str) -> None: ...
    def stop(self, kind: Kind, batch_id: str) -> None: ...
    def running(self) -> frozenset[tuple[Kind, str]]: ...
    def finished(self) -> list[Finished]:
        """Those that have ended since the last call."""
        ...


class Streams(Protocol):
    def start(self, model: str, replicas: int) -> None: ...
    def resize(self, model: str, replicas: int) -> None: ...
    def running(self) -> Mapping[str, int]:
        """With the replicas that each was asked for last."""
        ...

    def ended(self) -> list[StreamEnd]: ...
    def gpus(self) -> Gpus: ...


class Supervisor:
    def __init__(
        self,
        ledger: ServiceLedger,
        work: WorkDir,
        deployment: Deployment,
        workers: Workers,
        streams: Streams,
        outbox: Outbox,
        kept: KeptUrls,
        *,
        at_hand: Work,
        clock: Callable[[], float],
        ended: Callable[[Batch], None] = lambda _: None,
        stream_failed: Callable[[str], None] = lambda _: None,
    ) -> None:
        """`ended` and `stream_failed` are told for the metrics."""
        self._ended = ended
        self._stream_failed = stream_failed
        self._ledger = ledger
        self._work = work
        self._deployment = deployment
        self._workers = workers
        self._streams = streams
        self._outbox = outbox
        self._kept = kept
        self._clock = clock
        self._retries = RetryTimes(clock)
        self._idle_since: dict[str, float] = {}
        self._sizer = Sizer(deployment, at_hand, streams, clock, stays=self._stay)
        self._callers: dict[str, str] = {}
        self._housekeeping_at = 0.0
        self.stream_failures: dict[str, str] = {}
        self.no_room: frozenset[str] = frozenset()

    def tick(self) -> None:
        """One look at everything. What goes wrong with one batch does not keep it from the others."""
        self._ledger.expire_due()
        for job in self._workers.finished():
            self._guarded(job.batch_id, partial(self._finished, job))
        batches = self._ledger.unfinished()
        self._callers = {batch.batch_id: batch.caller for batch in batches}
        for batch in _in_turn(batches):
            self._guarded(batch.batch_id, partial(self._step, batch))
        self._run_streams({batch.model for batch in batches if batch.status == BatchStatus.IN_PROGRESS})
        if self._clock() >= self._housekeeping_at:
            self._housekeeping_at = self._clock() + _HOUSEKEEPING_S
            self._housekeeping()

    def poke(self, batch_id: str) -> None:
        """Something about the batch has changed (a new URL): try at once."""
        for kind in ("intake", "delivery"):
            self._retries.forget((kind, batch_id))

    def stays(self, model: str) -> bool:
        """Whether a stream without a row to answer keeps its engines. Asked whenever there is none to lease."""
        since = self._idle_since.setdefault(model, self._clock())
        settings = self._deployment.models[model].settings
        if self.yields(model):
            return False
        return settings.keep_warm or self._clock() - since < settings.idle_timeout_s

    def busy(self, model: str) -> None:
        self._idle_since.pop(model, None)

    def yields(self, model: str) -> bool:
        """Whether its stream is to lease nothing more, so that it ends when its shards do."""
        return self._sizer.wanted.get(model) == 0

    def most_replicas(self, model: str) -> int:
        """As far as the cluster may grow, if the other models leave it all."""
        return self._sizer.most(model)

    def outstanding(self, model: str, most: int) -> int:
        """Of `most` rows that its most replicas may have leased: as many as those that it has now."""
        replicas = self._deployment.config(model).replicas
        return math.ceil(most * self._sizer.wanted.get(model, replicas.max) / replicas.max)

    def _stay(self, model: str, replicas: int) -> int:
        settings = self._deployment.models[model].settings
        idle_s = self._clock() - self._idle_since.get(model, self._clock())
        least = self._deployment.config(model).replicas.min if settings.keep_warm else 0
        return max(replicas, least) if idle_s < settings.idle_timeout_s else least

    def _guarded(self, batch_id: str, act: Callable[[], None]) -> None:
        try:
            act()
        except (LsiError, OSError) as error:
            log.error("batch %s: %s: %s", batch_id, type(error).__name__, error)
        except Exception:  # a bug that one batch brings out must not stop all the others, at every tick anew
            log.exception("batch %s", batch_id)

    # -- batches

    def _step(self, batch: Batch) -> None:
        match batch.status:
            case BatchStatus.VALIDATING:
                self._want("intake", batch)
            case BatchStatus.FINALIZING | BatchStatus.CANCELLING:
                self._workers.stop("intake", batch.batch_id)
                self._finish(batch)
            case status if status.terminal:
                self._clean(batch)

    def _finish(self, batch: Batch) -> None:
        if not batch.shard_rows:  # never validated: no row of it was accepted, and there is nothing to deliver
            self._end(batch)
        elif (
            batch.status == BatchStatus.CANCELLING and self._since(batch) > self._deployment.settings.cancel_delivery_s
        ):
            self._ledger.warn(batch.batch_id, "cancelled; its finished rows could not be delivered in time")
            self._end(batch)
        elif batch.status == BatchStatus.FINALIZING and self._since(batch) > self._deployment.settings.keep.results_s:
            self._workers.stop("delivery", batch.batch_id)
            message = "the results could not be delivered as long as they are kept"
            self._ledger.fail_batch(batch.batch_id, [Finding("output_undeliverable", message)])
        else:
            self._want("delivery", batch)

    def _since(self, batch: Batch) -> float:
        return self._clock() - batch.times[batch.status]

    def _end(self, batch: Batch) -> None:
        self._workers.stop("delivery", batch.batch_id)
        assert batch.outcome is not None
        self._ledger.deliver(batch.batch_id, batch.outcome)

    def _want(self, kind: Kind, batch: Batch) -> None:
        running, key = self._workers.running(), (kind, batch.batch_id)
        if key in running or not self._retries.due(key):
            return
        settings = self._deployment.settings
        slots = settings.intakes if kind == "intake" else settings.deliveries
        busy = [self._callers.get(batch_id) for other, batch_id in running if other == kind]
        # One caller never has all slots: storage that trickles holds one for hours.
        if len(busy) >= slots or (slots > 1 and busy.count(batch.caller) >= slots - 1):
            return
        if kind == "intake":
            self._ledger.begin_validation(batch.batch_id)
        self._workers.start(kind, batch.batch_id)

    def _clean(self, batch: Batch) -> None:
        """Repeatable at every point: the event before the secret that signs it goes, the record last. Of the user's
        only the URLs are kept on, for a retry."""
        folder = self._work.batch(batch.batch_id)
        for kind in ("intake", "delivery"):
            self._workers.stop(kind, batch.batch_id)
            self._retries.forget((kind, batch.batch_id))
        with suppress(LedgerError):  # it was here before
            private = Private.load(folder)
            if private.webhook is not None:
                ended_at = batch.times[batch.status]
                self._outbox.put(batch.batch_id, batch.status, private.webhook, ended_at, caller=batch.caller)
            self._kept.put(batch.batch_id, private)
        self._work.erase_batch(batch.batch_id)
        self._ledger.notice(batch.batch_id, "")
        self._ledger.erase(batch.batch_id)
        self._ledger.scrub()
        self._ended(batch)
        log.info("batch %s is %s and erased", batch.batch_id, batch.status)

    def _finished(self, job: Finished) -> None:
        batch = self._ledger.batch(job.batch_id)
        key = (job.kind, job.batch_id)
        if job.error is None and not job.lost:
            self._retries.forget(key)
            self._ledger.notice(job.batch_id, "")
            if job.kind == "delivery" and job.result == "delivered" and batch.outcome is not None:
                self._ledger.deliver(job.batch_id, batch.outcome)
            return
        failures = self._retries.failed(key)
        log.warning("%s of %s failed (%d): %s", job.kind, job.batch_id, failures, job.error or job.detail)
        if job.kind == "intake":
            self._intake_failed(batch, job, failures)
        elif job.error is not None:
            self._ledger.notice(job.batch_id, _notice("output_url", job.error))

    def _intake_failed(self, batch: Batch, job: Finished, failures: int) -> None:
        if batch.status != BatchStatus.VALIDATING:
            return
        if job.error is None:
            if failures >= _LOST_INTAKES:
                message = f"its validation was lost {failures} times: {job.detail}"
                self._ledger.fail_batch(batch.batch_id, [Finding("internal_error", message)])
        elif isinstance(job.error, StorageError) and job.error.transient:
            self._ledger.notice(batch.batch_id, _notice("input_url", job.error))
        elif job.error.code == "input_url_expired":  # while the batch waited for its turn: no fault of its input
            said = f"{job.error.message}; PATCH the batch with a fresh input_url, and it goes on"
            self._ledger.notice(batch.batch_id, f"input_url: {said}")
        elif not isinstance(job.error, LedgerError):
            self._ledger.fail_batch(batch.batch_id, findings_of(job.error))

    # -- streams

    def _run_streams(self, needed: set[str]) -> None:
        for end in self._streams.ended():
            self._stream_ended(end)
        warm = {model for model, served in self._deployment.models.items() if served.settings.keep_warm}
        due = {
            model for model in needed | warm if self._retries.due(("stream", model))
        } & self._deployment.models.keys()
        running = self._streams.running()
        wanted = self._sizer.size(due, needed)
        for model in sorted(running.keys() & wanted.keys()):
            if wanted[model] not in (0, running[model]):
                self._streams.resize(model, wanted[model])
        for model in sorted(due - running.keys()):
            if wanted[model]:
                log.info("starting the stream of %s with %d replicas", model, wanted[model])
                self._idle_since.pop(model, None)
                self._streams.start(model, wanted[model])
        self.no_room = frozenset(model for model in due - running.keys() if not wanted[model])

    def _stream_ended(self, end: StreamEnd) -> None:
        if not end.failure:
            self._retries.forget(("stream", end.model))
            self.stream_failures.pop(end.model, None)
            return
        failures = self._retries.failed(("stream", end.model))
        self.stream_failures[end.model] = end.failure
        self._stream_failed(end.model)
        log.warning("the stream of %s ended early (%d in a row): %s", end.model, failures, end.failure)
        if failures >= self._deployment.settings.engine_tries:
            self._give_up(end, failures)

    def _give_up(self, end: StreamEnd, failures: int) -> None:
        """Batches without an answer fail with the reason; one with some keeps them for its window to deliver."""
        for batch in self._ledger.unfinished():
            if batch.model != end.model or batch.status != BatchStatus.IN_PROGRESS:
                continue
            if not self._ledger.progress(batch.batch_id).completed:
                message = f"the engine of {end.model} could not answer in {failures} starts: {end.failure}"
                self._ledger.fail_batch(batch.batch_id, [Finding("engine_failed", message)])

    def answered(self, model: str) -> None:
        """Rows came out of the model's stream: the next start after a failure is the first one again."""
        if model in self.stream_failures:
            self._retries.forget(("stream", model))
            self.stream_failures.pop(model, None)

    # -- housekeeping

    def _housekeeping(self) -> None:
        self._kept.sweep()
        store = FileStore(self._work.path)
        for file_id in self._ledger.expire_files():
            store.delete(file_id)


def _notice(reason: str, error: LsiError) -> str:
    """What a batch waits for: as a word, and for people."""
    word = {"work_dir_full": NO_SPACE, "model_not_served": "model_not_served"}.get(error.code, reason)
    return f"{word}: {error.message}"


def _in_turn(batches: Iterable[Batch]) -> list[Batch]:
    """Those that are being cancelled first; then each caller's oldest, each one's second, and so on."""
    seen = Counter[tuple[str, BatchStatus]]()
    turns: list[tuple[bool, int, Batch]] = []
    for batch in batches:
        turns.append((batch.status != BatchStatus.CANCELLING, seen[batch.caller, batch.status], batch))
        seen[batch.caller, batch.status] += 1
    return [batch for _, _, batch in sorted(turns, key=lambda turn: turn[:2])]
