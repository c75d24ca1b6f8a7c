"""How a batch has come along: what was done at some moments, at most 200 of them however long it takes.

The counts are those of the batch from its start, so that whatever lies between two moments, a restart too, is told as
the mean over the time between them. Of too many every second one goes, and the next ones come half as often.
It is kept when the batch is erased: counts and times are nobody's content.
"""

from __future__ import annotations

import sqlite3
import struct
from collections.abc import Sequence

from lsi_ray.ledger.service_records import Load, Moment
from lsi_ray.ledger.states import BatchStatus

MOST = 200
_MOMENT = struct.Struct("<dQQ")


def note(db: sqlite3.Connection, loads: Sequence[Load], now: float) -> None:
    """`loads`: of all batches; those that run are noted."""
    for load in loads:
        if load.status == BatchStatus.IN_PROGRESS:
            _note(db, load, Moment(now, load.completed + load.failed, load.tokens))


def _note(db: sqlite3.Connection, load: Load, moment: Moment) -> None:
    row = db.execute(
        "SELECT batch_no, step, moments FROM batches LEFT JOIN pace USING (batch_no) WHERE batch_id = ?",
        (load.batch_id,),
    ).fetchone()
    step, moments = row["step"] or 1.0, _decode(row["moments"] or b"")
    if not moments and not moment.rows:
        return
    stands = [(one.rows, one.tokens) == (moment.rows, moment.tokens) for one in moments[-2:]]
    if stands == [True, True]:
        moments[-1] = moment  # nothing moves: two moments tell since when, and until when
    elif moments and not stands[-1] and moment.at < moments[-1].at + step:
        return
    else:
        moments.append(moment)
    if len(moments) > MOST:
        step = max(2 * step, 2 * (moments[-1].at - moments[0].at) / MOST)
        moments = moments[::2]
    db.execute(
        "INSERT OR REPLACE INTO pace (batch_no, step, moments) VALUES (?, ?, ?)",
        (row["batch_no"], step, b"".join(_MOMENT.pack(one.at, one.rows, one.tokens) for one in moments)),
    )


def read(db: sqlite3.Connection, batch_no: int) -> tuple[Moment, ...]:
    """In order of time."""
    row = db.execute("SELECT moments FROM pace WHERE batch_no = ?", (batch_no,)).fetchone()
    return tuple(_decode(row["moments"])) if row is not None else ()


def _decode(data: bytes) -> list[Moment]:
    return [Moment(*found) for found in _MOMENT.iter_unpack(data)]
