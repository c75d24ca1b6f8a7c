"""Stream sessions and the leases they take.

A session number is a fencing epoch: opening one ends every lease of the model's earlier ones, and those can lease,
begin, blame and hand back nothing any more. Their finished rows are still welcome (see commits.py).

Whose turn it is: turns.py.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Collection, Iterator

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import batches, crashes, positions, shards, turns
from lsi_ray.ledger.records import Lease, LeaseAnswer
from lsi_ray.ledger.shards import ShardState

FORGIVEN = 2
"""How often a begun shard may lose its session without blame. The end of a session is mostly a kill of the driver or
of the machine, whose innocent rows in flight would else run alone, 8 by 8; a row that kills the machine still climbs
the ladder of crashes.py from its third time on. A row that kills its engine or its replica is blamed at once, by the
`crash` of the replica or by the `begin` of the next one."""


def open_session(db: sqlite3.Connection, model: str, now: float) -> int:
    for shard in _held_by_model(db, model):
        if shard["state"] == ShardState.LEASED:
            shards.hand_back(db, shard)
        elif shard["interrupted"] >= FORGIVEN:
            crashes.crash(db, shard, "engine_crashed", "its stream ended while it ran", now)
        else:
            shards.hand_back(db, shard)
            db.execute("UPDATE shards SET interrupted = interrupted + 1 WHERE shard_id = ?", (shard["shard_id"],))
    cursor = db.execute("INSERT INTO sessions (model, opened_at) VALUES (?, ?)", (model, now))
    assert cursor.lastrowid is not None
    return cursor.lastrowid


def _held_by_model(db: sqlite3.Connection, model: str) -> list[sqlite3.Row]:
    return db.execute(
        "SELECT * FROM shards WHERE state IN (1, 2)"
        " AND session = (SELECT max(session) FROM sessions WHERE model = ?) ORDER BY batch_no, start",
        (model,),
    ).fetchall()


def lease(
    db: sqlite3.Connection,
    session: int,
    max_rows: int,
    max_outstanding_rows: int,
    request: int,
    now: float,
    salt: Callable[[str], str],
) -> LeaseAnswer:
    current = _current(db, session)

    def made(shard: sqlite3.Row, batch: sqlite3.Row) -> Lease:
        return shards.lease_of(shard, batch, session, now, salt(batch["caller"]))

    if request and current["request"] == request:
        return _answer(db, current["model"], _given(db, session, request, made))
    room = max_outstanding_rows - _outstanding(db, session)
    # With nothing out, one shard goes however large it is, or it never would.
    alone = room == max_outstanding_rows
    chosen = _choose(turns.in_turn(db, current["model"], session, now), max_rows, room, at_least_one=alone)
    leases = tuple(made(shard, batch) for batch, shard in chosen)
    if leases:
        _take(db, session, request, leases)
    return _answer(db, current["model"], leases)


def _choose(
    waiting: Iterator[tuple[sqlite3.Row, sqlite3.Row]], max_rows: int, room: int, *, at_least_one: bool
) -> list[tuple[sqlite3.Row, sqlite3.Row]]:
    chosen: list[tuple[sqlite3.Row, sqlite3.Row]] = []
    rows = 0
    for batch, shard in waiting:
        rows += shard["todo"]
        first = not chosen
        if not ((rows <= max_rows or first) and (rows <= room or (first and at_least_one))):
            break
        chosen.append((batch, shard))
    return chosen


def _current(db: sqlite3.Connection, session: int) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM sessions WHERE session = ?", (session,)).fetchone()
    if row is None:
        raise LedgerError("no_such_session", f"no session {session}")
    newest = db.execute("SELECT max(session) FROM sessions WHERE model = ?", (row["model"],)).fetchone()[0]
    if newest != session:
        raise LedgerError("stale_session", f"session {session} of {row['model']} has ended: {newest} came after it")
    return row


def _given(
    db: sqlite3.Connection, session: int, request: int, made: Callable[[sqlite3.Row, sqlite3.Row], Lease]
) -> tuple[Lease, ...]:
    rows = db.execute(
        "SELECT shards.*, batch_id, caller, priority, deadline FROM shards JOIN batches USING (batch_no)"
        " WHERE session = ? AND state IN (1, 2) AND state = ? AND shards.request = ? ORDER BY shard_id",
        (session, ShardState.LEASED, request),
    )
    return tuple(made(row, row) for row in rows)


def _outstanding(db: sqlite3.Connection, session: int) -> int:
    query = "SELECT sum(todo) FROM shards WHERE session = ? AND state IN (1, 2)"
    return db.execute(query, (session,)).fetchone()[0] or 0


def _take(db: sqlite3.Connection, session: int, request: int, leases: tuple[Lease, ...]) -> None:
    db.execute("UPDATE sessions SET request = ? WHERE session = ?", (request, session))
    db.executemany(
        "UPDATE shards SET state = ?, session = ?, request = ?, replica = NULL WHERE shard_id = ?",
        ((ShardState.LEASED, session, request, lease.shard_id) for lease in leases),
    )


def _answer(db: sqlite3.Connection, model: str, leases: tuple[Lease, ...]) -> LeaseAnswer:
    if leases:
        return LeaseAnswer(leases, "work")
    return LeaseAnswer((), "wait" if turns.running(db, model) else "idle")


def lost_its_run(db: sqlite3.Connection, session: int, shard_id: int, replica: str) -> bool:
    """Whether another process began this shard for this session: it died, or nobody would ask anew."""
    rows = shards.held(db, session, [shard_id])
    return any(row["state"] == ShardState.BEGUN and row["replica"] != replica for row in rows)


def begin(db: sqlite3.Connection, session: int, shard_id: int, replica: str) -> tuple[int, ...] | None:
    for shard in shards.held(db, session, [shard_id]):
        if shard["state"] == ShardState.LEASED:
            _mark_begun(db, shard, replica)
        return positions.members(shard["start"], shard["stop"], shard["done"])
    return None


def _mark_begun(db: sqlite3.Connection, shard: sqlite3.Row, replica: str) -> None:
    db.execute(
        "UPDATE shards SET state = ?, replica = ?, begun = begun + 1 WHERE shard_id = ?",
        (ShardState.BEGUN, replica, shard["shard_id"]),
    )
    again = shard["todo"] if shard["begun"] else 0
    batches.count(db, shard["batch_no"], rows_begun=shard["todo"], rows_rerun=again)


def holders(db: sqlite3.Connection) -> dict[int, set[str]]:
    found: dict[int, set[str]] = {}
    for row in db.execute("SELECT DISTINCT session, replica FROM shards WHERE state IN (1, 2)"):
        found.setdefault(row["session"], set()).update([row["replica"]] if row["replica"] else [])
    return found


def lose(db: sqlite3.Connection, session: int, gone: Collection[str], now: float) -> int:
    in_state = "SELECT * FROM shards WHERE session = ? AND state IN (1, 2) AND state = ? ORDER BY shard_id"
    begun = db.execute(in_state, (session, ShardState.BEGUN)).fetchall()
    lost = [shard for shard in begun if shard["replica"] in gone]
    waiting = db.execute(in_state, (session, ShardState.LEASED)).fetchall()
    for shard in waiting:
        shards.renew(db, shard)
    for shard in lost:
        crashes.crash(db, shard, "engine_crashed", "its replica died while it ran", now)
    return len(lost) + len(waiting)
