"""Bugs to plant into the product, each a context: the simulation must find every one of them."""

from __future__ import annotations

import os
import sqlite3
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, BinaryIO
from unittest.mock import patch

from lsi_ray import delivery
from lsi_ray.ledger import batches, commits, crashes, positions, segments, sessions, shards, submissions, workdir
from lsi_ray.ledger.database import Database
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service import delivery_job
from lsi_ray.service.private import Private
from lsi_ray.service.supervisor import Finished, Supervisor

Bug = Callable[[], AbstractContextManager[Any]]


def acknowledged_before_durable() -> AbstractContextManager[Any]:
    """Commits are told before they are synced."""
    real = Database._synchronous
    return patch.object(Database, "_synchronous", lambda self, _: real(self, False))


def segment_not_synced() -> AbstractContextManager[Any]:
    """The ledger refers to a file that is in memory only."""

    @contextmanager
    def replacing(path: Path, named: Callable[[], str]) -> Iterator[BinaryIO]:
        temporary = path.with_name("segment.tmp")
        with open(temporary, "wb") as file:
            yield file
        os.replace(temporary, path.with_name(named()))

    return patch.object(segments, "replacing", replacing)


def folders_not_synced() -> AbstractContextManager[Any]:
    """Names of new files are not durable."""
    return patch.object(workdir, "sync_folder", lambda _: None)


def double_commit() -> AbstractContextManager[Any]:
    """First wins is gone: a row answered before is taken again."""

    def mark(db: sqlite3.Connection, batch_no: int, ordered: list[int]) -> list[int]:
        for shard, share in shards.holding(db, batch_no, ordered):
            shards.set_done(db, shard, positions.with_bits(shard["start"], shard["done"], share, True))
        return ordered

    return patch.object(commits, "_mark", mark)


def lease_without_fencing() -> AbstractContextManager[Any]:
    """A session that has been replaced goes on leasing."""

    real = sessions._current

    def current(db: sqlite3.Connection, session: int) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute("SELECT * FROM sessions WHERE session = ?", (session,)).fetchone()
        return row or real(db, session)

    return patch.object(sessions, "_current", current)


def blame_without_fencing() -> AbstractContextManager[Any]:
    """Anybody may begin, blame and hand back anybody's shard."""

    def held(db: sqlite3.Connection, session: int, shard_ids: Any) -> list[sqlite3.Row]:  # noqa: ARG001
        query = "SELECT * FROM shards WHERE shard_id = ? AND state IN (1, 2)"
        rows = (db.execute(query, (shard_id,)).fetchone() for shard_id in sorted(set(shard_ids)))
        return [row for row in rows if row is not None]

    return patch.object(shards, "held", held)


def delivered_early() -> AbstractContextManager[Any]:
    """One open row does not keep a batch from its delivery."""
    real = batches.finish_if_answered

    def finish(db: sqlite3.Connection, batch_no: int, now: float) -> bool:
        row = db.execute(f"{batches.SELECT} WHERE batch_no = ?", (batch_no,)).fetchone()
        if row["status"] == BatchStatus.IN_PROGRESS and row["completed"] + row["failed"] == row["rows_total"] - 1:
            batches.move(db, row, BatchStatus.FINALIZING, now, BatchStatus.COMPLETED)
            return True
        return real(db, batch_no, now)

    return patch.object(batches, "finish_if_answered", finish)


def _before_finished(act: Callable[[Supervisor, Finished], None]) -> AbstractContextManager[Any]:
    real = Supervisor._finished

    def finished(self: Supervisor, job: Finished) -> None:
        if job.kind == "delivery" and job.result == "delivered":
            act(self, job)
        real(self, job)

    return patch.object(Supervisor, "_finished", finished)


def erased_before_delivered() -> AbstractContextManager[Any]:
    """The folder goes before the status says that the output is there."""
    return _before_finished(lambda self, job: self._work.erase_batch(job.batch_id))


def webhook_before_state() -> AbstractContextManager[Any]:
    def tell(self: Supervisor, job: Finished) -> None:
        batch, webhook = self._ledger.batch(job.batch_id), Private.load(self._work.batch(job.batch_id)).webhook
        if webhook is not None and batch.outcome is not None:
            self._outbox.put(job.batch_id, batch.outcome, webhook, self._clock())
            self._outbox.send_due()

    return _before_finished(tell)


def row_counted_twice() -> AbstractContextManager[Any]:
    real = commits._sums

    def sums(answers: Any, indices: Any) -> dict[str, int]:
        listed = list(indices)
        return real(answers, [*listed, listed[-1]] if len(listed) > 2 else listed)

    return patch.object(commits, "_sums", sums)


def packed_at_every_try() -> AbstractContextManager[Any]:
    """What was packed is not what is sent."""
    return patch.object(delivery_job, "_load", lambda _: None)


def damage_not_looked_for() -> AbstractContextManager[Any]:
    return patch.object(delivery, "damaged", lambda _: [])


def key_forgotten() -> AbstractContextManager[Any]:
    """A repeated request makes another batch."""
    return patch.object(submissions, "repeated", lambda *_: None)


def poison_without_end() -> AbstractContextManager[Any]:
    return patch.object(crashes, "_quarantine", lambda db, shard, *_: shards.hand_back(db, shard))


def neighbours_blamed() -> AbstractContextManager[Any]:
    """The first crash answers all rows of its shard."""
    return patch.object(shards, "LAST_ATTEMPT", 1)


def results_after_the_end() -> AbstractContextManager[Any]:
    """A batch takes answers whatever its status is."""
    real = commits.commit

    def commit(db: sqlite3.Connection, segment: Any, answers: Any, now: float) -> Any:
        status = batches.find(db, answers.batch_id)["status"]
        db.execute("UPDATE batches SET status = 'in_progress' WHERE batch_id = ?", (answers.batch_id,))
        result = real(db, segment, answers, now)
        db.execute("UPDATE batches SET status = ? WHERE batch_id = ?", (status, answers.batch_id))
        return result

    return patch.object(commits, "commit", commit)


def not_erased() -> AbstractContextManager[Any]:
    return patch.object(WorkDir, "erase_batch", lambda *_: None)


def not_scrubbed() -> AbstractContextManager[Any]:
    """Erased rows stay readable in the WAL."""
    return patch.object(ServiceLedger, "scrub", lambda _: None)


BUGS: dict[str, Bug] = {
    bug.__name__: bug
    for bug in (
        acknowledged_before_durable, segment_not_synced, folders_not_synced, double_commit, lease_without_fencing,
        blame_without_fencing, delivered_early, erased_before_delivered, webhook_before_state, row_counted_twice,
        packed_at_every_try, damage_not_looked_for, key_forgotten, poison_without_end, neighbours_blamed,
        results_after_the_end, not_erased, not_scrubbed,
    )
}  # fmt: skip
