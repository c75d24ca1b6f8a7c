"""Whose shard is leased next: the most urgent batch, then the higher priority, then the caller with fewest rows out.

Urgency comes in steps: deadlines whose remaining times are within about 20 % of each other count as equal (and no
deadline comes last). By exact deadlines, one caller's 200 batches of this morning would keep everybody else's of noon
waiting till they are done, and neither priority nor fairness would ever decide anything.

Among equals the rows in flight decide, so a caller with slow rows holds as many of them as one with fast rows, then
the exact deadline, then age. In a batch fresh shards go before suspects, because a suspect empties its engine.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

from lsi_ray.ledger.states import BatchStatus

_STEPS_PER_DOUBLING = 4
_SOON_S = 60.0  # everything due within a minute is equally urgent


def urgency(deadline: float | None, now: float) -> float:
    """Smaller is sooner."""
    if deadline is None:
        return math.inf
    return math.floor(_STEPS_PER_DOUBLING * math.log2(max(deadline - now, _SOON_S)))


def running(db: sqlite3.Connection, model: str) -> list[sqlite3.Row]:
    """The batches of the model that take results, by age."""
    return db.execute(
        "SELECT batch_no, batch_id, caller, priority, deadline FROM batches WHERE model = ? AND status = ?"
        " ORDER BY batch_no",
        (model, BatchStatus.IN_PROGRESS),
    ).fetchall()


def in_turn(db: sqlite3.Connection, model: str, session: int, now: float) -> Iterator[tuple[str, sqlite3.Row]]:
    """Pending shards with their batch ids, as if each one taken were out. Read only as far as the caller goes:
    80,000 may wait, a few are wanted."""
    out = _rows_out(db, session)
    waiting = {batch["batch_no"]: batch for batch in running(db, model)}
    pending: dict[int, Iterator[sqlite3.Row]] = {}
    while waiting:
        batch = min(waiting.values(), key=lambda batch: _turn(batch, out, now))
        number = batch["batch_no"]
        if number not in pending:
            pending[number] = _pending(db, number)
        if (shard := next(pending[number], None)) is None:
            del waiting[number]
            continue
        yield batch["batch_id"], shard
        out[batch["caller"]] = out.get(batch["caller"], 0) + shard["todo"]


def _turn(batch: sqlite3.Row, out: dict[str, int], now: float) -> tuple[float, ...]:
    deadline = batch["deadline"]
    exact = math.inf if deadline is None else deadline
    rank = urgency(deadline, now)
    return rank, -batch["priority"], out.get(batch["caller"], 0), exact, batch["batch_no"]


def _pending(db: sqlite3.Connection, batch_no: int) -> Iterator[sqlite3.Row]:
    query = "SELECT * FROM shards WHERE batch_no = ? AND state = 0 ORDER BY attempt, start"
    return iter(db.execute(query, (batch_no,)))


def _rows_out(db: sqlite3.Connection, session: int) -> dict[str, int]:
    rows = db.execute(
        "SELECT caller, sum(todo) FROM shards JOIN batches USING (batch_no)"
        " WHERE session = ? AND state IN (1, 2) GROUP BY caller",
        (session,),
    )
    return {caller: todo for caller, todo in rows}
