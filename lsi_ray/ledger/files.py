"""Records of uploaded and finished files; their bytes lie in `<work>/files/<file_id>`.

A record is made after its bytes are durable, and removed before they are, so that a file that is listed is there.
"""

from __future__ import annotations

import sqlite3

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.service_records import File
from lsi_ray.ledger.states import BatchStatus

_COLUMNS = "file_id, owner, filename, bytes, purpose, created_at, expires_at"


def insert(db: sqlite3.Connection, file: File) -> None:
    """The same id again changes nothing."""
    db.execute(
        f"INSERT OR IGNORE INTO files ({_COLUMNS}) VALUES (?, ?, ?, ?, ?, ?, ?)",
        (file.file_id, file.owner, file.filename, file.bytes, file.purpose, file.created_at, file.expires_at),
    )


def find(db: sqlite3.Connection, owner: str, file_id: str, now: float) -> File:
    row = db.execute(f"SELECT {_COLUMNS} FROM files WHERE file_id = ? AND owner = ?", (file_id, owner)).fetchone()
    if row is None or (row["expires_at"] is not None and row["expires_at"] <= now):
        raise LedgerError("no_such_file", f"no file {file_id!r}")
    return File(*row)


def select(
    db: sqlite3.Connection,
    owner: str,
    now: float,
    *,
    purpose: str | None,
    after: str | None,
    limit: int,
    descending: bool,
) -> tuple[File, ...]:
    where, values = ["owner = ?", "(expires_at IS NULL OR expires_at > ?)"], list[object]([owner, now])
    if purpose is not None:
        where.append("purpose = ?")
        values.append(purpose)
    if after is not None:
        where.append(f"file_no {'<' if descending else '>'} ?")
        values.append(_number(db, owner, after))
    order = "DESC" if descending else "ASC"
    rows = db.execute(
        f"SELECT {_COLUMNS} FROM files WHERE {' AND '.join(where)} ORDER BY file_no {order} LIMIT ?", (*values, limit)
    )
    return tuple(File(*row) for row in rows)


def _number(db: sqlite3.Connection, owner: str, file_id: str) -> int:
    row = db.execute("SELECT file_no FROM files WHERE file_id = ? AND owner = ?", (file_id, owner)).fetchone()
    if row is None:
        raise LedgerError("no_such_file", f"no file {file_id!r}")
    return int(row["file_no"])


def delete(db: sqlite3.Connection, owner: str, file_id: str, now: float) -> None:
    """LedgerError `file_in_use` while a batch that is not terminal names it as its input."""
    find(db, owner, file_id, now)
    ends = [status for status in BatchStatus if status.terminal]
    user = db.execute(
        "SELECT batch_id FROM batches WHERE caller = ? AND json_extract(request, '$.options.input_file_id') = ?"
        f" AND status NOT IN ({', '.join('?' * len(ends))})",
        (owner, file_id, *ends),
    ).fetchone()
    if user is not None:
        raise LedgerError("file_in_use", f"file {file_id} is the input of {user['batch_id']}, which has not ended")
    db.execute("DELETE FROM files WHERE file_id = ?", (file_id,))


def expire(db: sqlite3.Connection, now: float) -> tuple[str, ...]:
    """Forget the files whose time is over; their ids."""
    rows = db.execute("SELECT file_id FROM files WHERE expires_at <= ?", (now,)).fetchall()
    db.executemany("DELETE FROM files WHERE file_id = ?", rows)
    return tuple(row["file_id"] for row in rows)


def known(db: sqlite3.Connection) -> frozenset[str]:
    return frozenset(row["file_id"] for row in db.execute("SELECT file_id FROM files"))
