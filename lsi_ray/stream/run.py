"""Running a model's stream until a batch is answered: sessions one after another, watched from outside.

A session is one Ray Data execution. One that ends early costs the rows that were in flight; the next one goes on from
the ledger. Sessions that answer nothing are not repeated for ever.
"""

from __future__ import annotations

import gc
import logging
import math
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ray.exceptions import RayError

from lsi_ray.config import Config
from lsi_ray.errors import EngineError, LsiError
from lsi_ray.ledger.records import Progress
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.space import is_full
from lsi_ray.stream.build import build_stream
from lsi_ray.stream.ledger_actor import RemoteLedger
from lsi_ray.stream.logs import LOG_FILE, log_lines
from lsi_ray.stream.ports import Replica
from lsi_ray.stream.resize import Wanted

log = logging.getLogger(__name__)

_FRUITLESS_SESSIONS = 3
_WATCH_S = 0.5
_STOP_S = 10.0


@dataclass(frozen=True, slots=True)
class Snapshot:
    """What a watcher sees twice a second."""

    progress: Progress
    replicas: tuple[Replica, ...]
    sessions: int
    full: bool
    """The disk of the work dir is: the stream waits for space."""


def run_until_answered(
    config: Config,
    work: Path,
    ledger: RemoteLedger,
    batch_id: str,
    watch: Callable[[Snapshot], None],
) -> None:
    """Returns when no row of the batch is open. Raises EngineError when the engine cannot be made to answer."""
    log_lines(work / LOG_FILE)
    runner = _Runner(config, work, ledger, batch_id)
    threading.Thread(target=runner.run, name="stream", daemon=True).start()
    try:
        while not runner.ended.wait(_WATCH_S):
            watch(Snapshot(ledger.progress(batch_id), tuple(ledger.replicas()), runner.sessions, is_full(work)))
    except BaseException:
        # Without its ledger the stream ends by itself. Ray must not end before it: a thread that still calls Ray then
        # makes Ray end this process, by _exit or abort.
        ledger.kill()
        runner.ended.wait(_STOP_S)
        raise
    if runner.error is not None:
        raise runner.error


class _Runner:
    def __init__(self, config: Config, work: Path, ledger: RemoteLedger, batch_id: str) -> None:
        self._config = config
        self._work = work
        self._ledger = ledger
        self._batch_id = batch_id
        self.sessions = 0
        self.error: Exception | None = None
        # Not `Thread.join`: in Python 3.11, one that Ctrl-C interrupts marks a running thread as ended.
        self.ended = threading.Event()

    def run(self) -> None:
        try:
            self._run()
        except Exception as error:  # it ends the thread; the watcher raises it in the driver
            self.error = error
        finally:
            self.ended.set()

    def _run(self) -> None:
        fruitless, reason = 0, ""
        while self._open():
            if fruitless == _FRUITLESS_SESSIONS:
                raise EngineError(reason or "the stream ended three times without an answer", code="stream_failed")
            if fruitless:
                time.sleep(2.0**fruitless)
            before = self._answered()
            reason = self._reason(self._session())
            fruitless = 0 if self._answered() > before else fruitless + 1
            # Ray Data leaves the actors of a failed execution to reference counting, and cycles of its failure hold
            # them: a render worker kept its CPU for 260 s, and on 2 cores the next session had none for its own.
            gc.collect()

    def _session(self) -> Exception | None:
        """One execution of the stream; what ended it early, if anything did."""
        self._ledger.forget_replicas()
        session = self._ledger.open_session(self._config.model)
        self.sessions += 1
        try:
            log_file = self._work / LOG_FILE
            stream = build_stream(self._config, self._work, self._ledger, session, log_file)
            Wanted(self._replicas()).follow(stream, self._config)
            for _ in stream.iter_internal_ref_bundles():
                pass
        except (RayError, LsiError) as error:
            log.warning("session %d ended early: %s", session, error)
            return error
        return None

    def _replicas(self) -> int:
        """As many as the rows that are left fill twice. What no node holds yet is a demand for the autoscaler."""
        progress, config = self._ledger.progress(self._batch_id), self._config
        left = progress.total - progress.completed - progress.failed
        filled: int = math.ceil(left / (2 * config.engine.max_num_seqs))
        return min(max(filled, config.replicas.min), config.replicas.max)

    def _reason(self, failure: Exception | None) -> str:
        """In people's words: what the replicas themselves said, before what Ray says about them."""
        said = [replica.detail for replica in self._ledger.replicas() if replica.state == "failed"]
        if said:
            return str(said[-1])
        cause = getattr(failure, "cause", None) or failure
        lines: list[str] = str(cause).strip().splitlines() if cause else []
        return lines[-1] if lines else ""

    def _open(self) -> bool:
        return bool(self._ledger.batch(self._batch_id).status == BatchStatus.IN_PROGRESS)

    def _answered(self) -> int:
        progress = self._ledger.progress(self._batch_id)
        return int(progress.completed + progress.failed)
