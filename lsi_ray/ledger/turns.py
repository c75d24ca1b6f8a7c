"""Whose shard is leased next: the most urgent batch, then the higher priority, then the caller with fewest rows out.

Urgency comes in steps: deadlines whose remaining times are within about 20 % of each other count as equal (and no
deadline comes last). By exact deadlines, one caller's 200 batches of this morning would keep everybody else's of noon
waiting till they are done, and neither priority nor fairness would ever decide anything.

Among equals the rows in flight decide, so a caller with slow rows holds as many of them as one with fast rows, then
the exact deadline, then age. In a batch fresh shards go before suspects, because a suspect empties its engine.

What is leased waits once more, inside the engine: `engine_rank` says for how long.
"""

from __future__ import annotations

import math
import sqlite3
from collections.abc import Iterator

from lsi_ray.ledger.states import BatchStatus

_STEPS_PER_DOUBLING = 4
_SOON_S = 60.0  # everything due within a minute is equally urgent

_LEAD = 16
_LEVEL_S = 60
_NO_DEADLINE_S = 30 * 86_400.0


def urgency(deadline: float | None, now: float) -> float:
    """Smaller is sooner."""
    if deadline is None:
        return math.inf
    return math.floor(_STEPS_PER_DOUBLING * math.log2(max(deadline - now, _SOON_S)))


def engine_rank(deadline: float | None, priority: int, now: float) -> int:
    """The order of rows that wait inside an engine, smaller first: the time of their lease, plus a 16th of the time
    that is left, less a minute per priority. In seconds.

    A row so overtakes what was leased up to a 16th of the difference of their deadlines before it: one due in 15
    minutes goes ahead of all rows of a day's batch that came in the last 90 minutes, and two batches due within the
    hour take turns within 4. Urgency steps would not do: they fall while a batch runs, so that each step's rows would
    overtake the batch's own earlier ones, which would wait till the next step or for ever. This rank only grows with
    the time of the lease, so that within a batch, and among equals, the first leased comes first.
    """
    left = _NO_DEADLINE_S if deadline is None else min(deadline - now, _NO_DEADLINE_S)
    return round(now + left / _LEAD) - _LEVEL_S * priority


def running(db: sqlite3.Connection, model: str) -> list[sqlite3.Row]:
    """The batches of the model that take results, by age."""
    return db.execute(
        "SELECT batch_no, batch_id, caller, priority, deadline FROM batches WHERE model = ? AND status = ?"
        " ORDER BY batch_no",
        (model, BatchStatus.IN_PROGRESS),
    ).fetchall()


def in_turn(db: sqlite3.Connection, model: str, session: int, now: float) -> Iterator[tuple[sqlite3.Row, sqlite3.Row]]:
    """Pending shards, each behind its batch, as if each one taken were out. Read only as far as the caller goes:
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
        yield batch, shard
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
