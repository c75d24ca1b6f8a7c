"""The ledger: what has been accepted, who runs what, and what is finished.

Every method is one transaction and may be repeated safely, because it will be: calls between processes get lost.
Methods take and give small frozen records (records.py), never connections or arrays, so that an actor can be made of
this class as it is. Raises LedgerError: `work_dir_in_use`, `ledger_unreadable`, `no_such_batch`, `batch_conflict`,
`illegal_transition`, `stale_session`, `no_such_session`, `bad_answers`, `segment_conflict`, `not_disownable`,
`unsafe_name`, `ledger_io`.
"""

from __future__ import annotations

import sqlite3
import time
from collections.abc import Callable, Collection, Sequence
from contextlib import AbstractContextManager
from pathlib import Path

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger import batches, commits, crashes, digest, lifecycle, sessions, shards
from lsi_ray.ledger.cache_salts import CacheSalts
from lsi_ray.ledger.database import Database
from lsi_ray.ledger.lock import WorkLock
from lsi_ray.ledger.records import (
    Answers,
    Batch,
    CommitResult,
    ErrorCount,
    ErrorNote,
    LeaseAnswer,
    NewBatch,
    Progress,
    RowFailure,
    SegmentRef,
)
from lsi_ray.ledger.states import BatchStatus


class Ledger:
    """`path` is the SQLite file; the lock lies beside it. `lock_wait_s`: patience with a dying holder of the lock."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time, lock_wait_s: float = 10.0) -> None:
        self._clock = clock
        self._cache_salts = CacheSalts(path.parent / "cache.key")
        self._lock = WorkLock(path.parent / "lock", wait_s=lock_wait_s)
        try:
            self._database = Database(path)
        except BaseException:
            self._lock.release()
            raise

    def close(self) -> None:
        self._database.close()
        self._lock.release()

    # -- the life of a batch

    def create_batch(self, new: NewBatch) -> Batch:
        """The same id again gives the batch there is; with other content (deadline aside) `batch_conflict`."""
        with self._database.transaction(durable=True) as db:
            batches.insert(db, new, self._clock())
            return batches.read(db, batches.find(db, new.batch_id))

    def start_batch(
        self,
        batch_id: str,
        rows_total: int,
        plan_rows: int,
        shard_rows: int,
        segment: SegmentRef | None = None,
        failed: int | None = None,
        errors: Sequence[ErrorNote] = (),
        shard_stops: Sequence[int] | None = None,
    ) -> Batch:
        """End of validation. Shards end at `shard_stops`, or else have `shard_rows` rows each. `segment` holds the
        `rows_total - plan_rows` rows that validation answered, of which `failed` (all by default) are errors. Without
        a row to run the batch is `finalizing` at once. Cancelled, expired or failed meanwhile: `illegal_transition`."""
        cuts = shards.cuts(plan_rows, shard_rows, shard_stops)
        with self._database.transaction(durable=True) as db:
            lifecycle.start(db, batch_id, rows_total, plan_rows, cuts, segment, failed, errors, self._clock())
            return batches.read(db, batches.find(db, batch_id))

    def fail_batch(self, batch_id: str, findings: Sequence[Finding]) -> Batch:
        with self._database.transaction(durable=True) as db:
            lifecycle.fail(db, batch_id, findings, self._clock())
            return batches.read(db, batches.find(db, batch_id))

    def request_cancel(self, batch_id: str) -> Batch:
        """To `cancelling`, from anywhere; a batch that is terminal or cancelling stays as it is."""
        with self._database.transaction(durable=True) as db:
            lifecycle.cancel(db, batch_id, self._clock())
            return batches.read(db, batches.find(db, batch_id))

    def expire_due(self, now: float | None = None) -> tuple[str, ...]:
        """Move every unfinished batch whose deadline has come to `finalizing`, outcome `expired`; their ids."""
        moment = self._clock() if now is None else now
        with self._database.transaction(durable=True) as db:
            return lifecycle.expire_due(db, moment, self._clock())

    def deliver(self, batch_id: str, status: BatchStatus) -> Batch:
        """The output is where it should be: to the terminal `status`, which must be the batch's outcome."""
        with self._database.transaction(durable=True) as db:
            lifecycle.deliver(db, batch_id, status, self._clock())
            return batches.read(db, batches.find(db, batch_id))

    def transition(self, batch_id: str, to: BatchStatus) -> Batch:
        """Any step that needs nothing but its name; starting and finishing have methods of their own."""
        if to == BatchStatus.CANCELLING:
            return self.request_cancel(batch_id)
        if to == BatchStatus.FAILED:
            return self.fail_batch(batch_id, ())
        if to.terminal:
            return self.deliver(batch_id, to)
        raise LedgerError("illegal_transition", f"a batch becomes {to} by start_batch, commit or expire_due only")

    def erase(self, batch_id: str) -> None:
        """Forget the shards, segments and failures of a terminal batch; its summary stays."""
        with self._database.transaction(durable=True) as db:
            lifecycle.erase(db, batch_id)

    # -- reading

    def reading(self) -> AbstractContextManager[sqlite3.Connection]:
        """The tables themselves, for invariants.py in the same process."""
        return self._database.reading()

    def batch(self, batch_id: str) -> Batch:
        with self._database.reading() as db:
            return batches.read(db, batches.find(db, batch_id))

    def batches(
        self,
        *,
        statuses: Sequence[BatchStatus] = (),
        model: str | None = None,
        caller: str | None = None,
        after: str | None = None,
        limit: int = 100,
    ) -> tuple[Batch, ...]:
        """Newest first; `after` is the id of the last one seen."""
        with self._database.reading() as db:
            return batches.select(db, statuses, model, caller, after, limit)

    def progress(self, batch_id: str) -> Progress:
        with self._database.reading() as db:
            return batches.progress(db, batches.find(db, batch_id))

    def segments(self, batch_id: str) -> list[SegmentRef]:
        """In the order of their commits, that of validation first."""
        with self._database.reading() as db:
            return commits.refs(db, batches.find(db, batch_id)["batch_no"])

    def row_failures(self, batch_id: str) -> list[RowFailure]:
        """Rows that the ledger answered, by position; no segment holds a line for them."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT position, code, message FROM quarantined WHERE batch_no = ? ORDER BY position",
                (batches.find(db, batch_id)["batch_no"],),
            )
            return [RowFailure(*row) for row in rows]

    def error_digest(self, batch_id: str) -> tuple[ErrorCount, ...]:
        """Most frequent code first."""
        with self._database.reading() as db:
            return digest.read(db, batches.find(db, batch_id)["batch_no"])

    # -- running

    def open_session(self, model: str) -> int:
        """A new epoch for the model's stream; all leases of its earlier ones end. A begun shard is blamed when it loses
        its session for the third time."""
        with self._database.transaction(durable=True) as db:
            return sessions.open_session(db, model, self._clock())

    def lease(self, session: int, max_rows: int, max_outstanding_rows: int, *, request: int = 0) -> LeaseAnswer:
        """Shards of at most `max_rows` rows together, while at most `max_outstanding_rows` are out. A `request` number
        above 0 that repeats the session's last one gets the same leases again. `stale_session` ends the caller."""
        with self._database.transaction(durable=False) as db:
            salt = self._cache_salts.of
            return sessions.lease(db, session, max_rows, max_outstanding_rows, request, self._clock(), salt)

    def begin(self, session: int, shard_id: int, replica: str) -> tuple[int, ...] | None:
        """The positions to run now, or None: do nothing. `replica` names one process running the shard once; the same
        name again gets the same answer, another one means that the first died with the shard, which is a crash."""
        with self._database.transaction(durable=False) as db:
            if not sessions.lost_its_run(db, session, shard_id, replica):
                return sessions.begin(db, session, shard_id, replica)
        self.crash(session, [shard_id], "its replica died while it ran")  # durable: it may answer a row
        return None

    def commit(self, session: int, segment: SegmentRef, answers: Answers) -> CommitResult:  # noqa: ARG002
        """Durable on return. Takes the rows that are still open, whatever the session (see commits.py)."""
        with self._database.transaction(durable=True) as db:
            return commits.commit(db, segment, answers, self._clock())

    def crash(self, session: int, shard_ids: Sequence[int], reason: str, *, code: str = "engine_crashed") -> None:
        """The engine died or hung while these shards ran: one step up the ladder of crashes.py. A shard that had not
        begun goes back without blame."""
        with self._database.transaction(durable=True) as db:
            for shard in shards.held(db, session, shard_ids):
                if shard["state"] == shards.ShardState.BEGUN:
                    crashes.crash(db, shard, code, reason, self._clock())
                else:
                    shards.hand_back(db, shard)

    def holders(self) -> dict[int, set[str]]:
        """By session that has shards out, the replicas that have begun what is not answered."""
        with self._database.reading() as db:
            return sessions.holders(db)

    def lose(self, session: int, gone: Collection[str]) -> int:
        """What the `gone` replicas have begun is blamed on them, as by `crash`. What is leased and has not begun is
        leased anew: it may wait at one of them for ever. The number of shards that were taken back."""
        with self._database.transaction(durable=True) as db:
            return sessions.lose(db, session, gone, self._clock())

    def release(self, session: int, shard_ids: Sequence[int]) -> None:
        """Hand back without blame; the same attempt will be made again."""
        with self._database.transaction(durable=False) as db:
            for shard in shards.held(db, session, shard_ids):
                shards.hand_back(db, shard)

    def disown(self, batch_id: str, segment: str) -> int:
        """A segment file is lost or damaged: its rows are open again, a finalizing batch runs on; the rows reopened."""
        with self._database.transaction(durable=True) as db:
            return commits.disown(db, batch_id, segment, self._clock())
