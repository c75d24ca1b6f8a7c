"""The error digest of a batch: rows by error code with the first example, kept per segment so that a disowned one goes.

Rows that the ledger itself answered (`quarantined`) are counted where the digest is read. When a batch is erased its
counts stay and its examples go: messages and custom_ids are the user's.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Sequence

from lsi_ray.ledger.records import ErrorCount, ErrorNote


def add(db: sqlite3.Connection, batch_no: int, segment: str, notes: Sequence[ErrorNote]) -> None:
    db.executemany(
        "INSERT INTO errors VALUES (?, ?, ?, 1, ?, ?, ?)"
        " ON CONFLICT (batch_no, segment, code) DO UPDATE SET rows = rows + 1",
        (
            (batch_no, segment, note.code, note.row, note.message, note.custom_id)
            for note in sorted(notes, key=lambda note: note.row)
        ),
    )


def remove(db: sqlite3.Connection, batch_no: int, segment: str) -> None:
    db.execute("DELETE FROM errors WHERE batch_no = ? AND segment = ?", (batch_no, segment))


def read(db: sqlite3.Connection, batch_no: int) -> tuple[ErrorCount, ...]:
    """Most frequent first. SQLite takes the bare columns from the row that holds the minimum."""
    rows = db.execute(
        "SELECT code, sum(rows) AS total, min(row) AS first, message, custom_id FROM errors WHERE batch_no = ?1"
        " GROUP BY code UNION ALL"
        " SELECT code, count(*) AS total, -1 AS first, message, NULL FROM quarantined WHERE batch_no = ?1 GROUP BY code"
        " ORDER BY total DESC, code",
        (batch_no,),
    )
    return tuple(ErrorCount(*row) for row in rows)


def forget_examples(db: sqlite3.Connection, batch_no: int) -> None:
    """One line per code is left. `quarantined` is not erased yet."""
    counts = read(db, batch_no)
    db.execute("DELETE FROM errors WHERE batch_no = ?", (batch_no,))
    db.execute("DELETE FROM quarantined WHERE batch_no = ?", (batch_no,))
    db.executemany(
        "INSERT INTO errors VALUES (?, '', ?, ?, -1, '', NULL)"
        " ON CONFLICT (batch_no, segment, code) DO UPDATE SET rows = rows + excluded.rows",
        ((batch_no, count.code, count.rows) for count in counts),
    )
