"""The ledger's schema as an ordered list of steps; the names of those applied are kept in the file.

A step, once released, never changes; a new one is appended. A file with a step that we do not know was written by a
newer version and is refused.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Sequence

from lsi_ray.errors import LedgerError

Migration = Callable[[sqlite3.Connection], None]


def m001_initial(db: sqlite3.Connection) -> None:
    # request: the NewBatch as JSON, to know a repeated creation; counts are apart, so that a commit rewrites 60 bytes
    db.execute("""
        CREATE TABLE batches (
            batch_no INTEGER PRIMARY KEY, batch_id TEXT NOT NULL UNIQUE, request TEXT NOT NULL, model TEXT NOT NULL,
            caller TEXT NOT NULL, priority INTEGER NOT NULL, deadline REAL, status TEXT NOT NULL, outcome TEXT,
            created_at REAL NOT NULL, findings TEXT NOT NULL DEFAULT '[]', shard_rows INTEGER NOT NULL DEFAULT 0,
            erased INTEGER NOT NULL DEFAULT 0)""")
    db.execute("CREATE INDEX batches_by_model ON batches (model, status)")
    db.execute("""
        CREATE TABLE counts (
            batch_no INTEGER PRIMARY KEY REFERENCES batches, rows_total INTEGER NOT NULL DEFAULT 0,
            plan_rows INTEGER NOT NULL DEFAULT 0, completed INTEGER NOT NULL DEFAULT 0,
            failed INTEGER NOT NULL DEFAULT 0, prompt_tokens INTEGER NOT NULL DEFAULT 0,
            completion_tokens INTEGER NOT NULL DEFAULT 0, cached_tokens INTEGER NOT NULL DEFAULT 0,
            rows_begun INTEGER NOT NULL DEFAULT 0, rows_rerun INTEGER NOT NULL DEFAULT 0)""")
    db.execute("""
        CREATE TABLE history (
            batch_no INTEGER NOT NULL REFERENCES batches, step INTEGER NOT NULL, status TEXT NOT NULL,
            at REAL NOT NULL, PRIMARY KEY (batch_no, step)) WITHOUT ROWID""")
    db.execute("""
        CREATE TABLE sessions (
            session INTEGER PRIMARY KEY AUTOINCREMENT, model TEXT NOT NULL, opened_at REAL NOT NULL,
            request INTEGER NOT NULL DEFAULT 0)""")
    db.execute("CREATE INDEX sessions_by_model ON sessions (model, session)")
    # AUTOINCREMENT: a shard that was split leaves an id that nobody else gets, so late messages about it miss
    db.execute("""
        CREATE TABLE shards (
            shard_id INTEGER PRIMARY KEY AUTOINCREMENT, batch_no INTEGER NOT NULL REFERENCES batches,
            start INTEGER NOT NULL, stop INTEGER NOT NULL, attempt INTEGER NOT NULL, state INTEGER NOT NULL,
            todo INTEGER NOT NULL, done BLOB NOT NULL, begun INTEGER NOT NULL, interrupted INTEGER NOT NULL,
            session INTEGER REFERENCES sessions, request INTEGER NOT NULL DEFAULT 0, replica TEXT)""")
    db.execute("CREATE UNIQUE INDEX shards_by_start ON shards (batch_no, start)")
    db.execute("CREATE INDEX shards_pending ON shards (batch_no, attempt, start) WHERE state = 0")
    db.execute("CREATE INDEX shards_held ON shards (session, batch_no) WHERE state IN (1, 2)")
    db.execute("""
        CREATE TABLE segments (
            segment_no INTEGER PRIMARY KEY, batch_no INTEGER NOT NULL REFERENCES batches, name TEXT NOT NULL,
            size INTEGER NOT NULL, rows INTEGER NOT NULL, sha256 TEXT NOT NULL, positions BLOB, refused BLOB,
            completed INTEGER NOT NULL, failed INTEGER NOT NULL, prompt_tokens INTEGER NOT NULL,
            completion_tokens INTEGER NOT NULL, cached_tokens INTEGER NOT NULL, UNIQUE (batch_no, name))""")
    db.execute("""
        CREATE TABLE quarantined (
            batch_no INTEGER NOT NULL REFERENCES batches, position INTEGER NOT NULL, code TEXT NOT NULL,
            message TEXT NOT NULL, PRIMARY KEY (batch_no, position)) WITHOUT ROWID""")


def m002_service(db: sqlite3.Connection) -> None:
    # What the service keeps beside a batch. No URL and no secret is ever here: see private.py.
    db.execute("""
        CREATE TABLE service (
            batch_no INTEGER PRIMARY KEY REFERENCES batches, archived INTEGER NOT NULL DEFAULT 0, window TEXT,
            notice TEXT NOT NULL DEFAULT '', warnings TEXT NOT NULL DEFAULT '[]', output_file_id TEXT,
            error_file_id TEXT, prompt_bytes INTEGER NOT NULL DEFAULT 0, failed_rows BLOB, retries INTEGER NOT NULL
            DEFAULT 0)""")
    db.execute("""
        CREATE TABLE errors (
            batch_no INTEGER NOT NULL REFERENCES batches, segment TEXT NOT NULL, code TEXT NOT NULL,
            rows INTEGER NOT NULL, row INTEGER NOT NULL, message TEXT NOT NULL, custom_id TEXT,
            PRIMARY KEY (batch_no, segment, code)) WITHOUT ROWID""")
    db.execute("CREATE INDEX batches_by_caller ON batches (caller, batch_no)")
    db.execute("CREATE INDEX batches_alive ON batches (batch_no) WHERE erased = 0")
    db.execute("""
        CREATE TABLE tokens (
            token_id TEXT PRIMARY KEY, sha256 TEXT NOT NULL, caller TEXT NOT NULL, name TEXT NOT NULL,
            scopes TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL, revoked_at REAL)""")
    db.execute("""
        CREATE TABLE files (
            file_no INTEGER PRIMARY KEY, file_id TEXT NOT NULL UNIQUE, owner TEXT NOT NULL, filename TEXT NOT NULL,
            bytes INTEGER NOT NULL, purpose TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL)""")
    db.execute("CREATE INDEX files_by_owner ON files (owner, file_no)")
    db.execute("""
        CREATE TABLE idempotency (
            caller TEXT NOT NULL, key TEXT NOT NULL, body TEXT NOT NULL, batch_id TEXT NOT NULL, at REAL NOT NULL,
            PRIMARY KEY (caller, key)) WITHOUT ROWID""")
    db.execute("CREATE INDEX idempotency_by_time ON idempotency (at)")


def m003_admission(db: sqlite3.Connection) -> None:
    # When validation began, and what it found a batch to weigh: rows to run, the most tokens they may give, media.
    db.execute("ALTER TABLE service ADD COLUMN validation_begun_at REAL")
    for column in ("planned_rows", "max_tokens", "media"):
        db.execute(f"ALTER TABLE service ADD COLUMN {column} INTEGER NOT NULL DEFAULT 0")


def m004_page(db: sqlite3.Connection) -> None:
    # For the web page. pace: `moments` as pace.py packs them, at most 200; the next one `step` seconds after the last
    db.execute("""
        CREATE TABLE sign_ins (
            sha256 TEXT PRIMARY KEY, token_id TEXT NOT NULL, created_at REAL NOT NULL, expires_at REAL NOT NULL)""")
    db.execute("CREATE INDEX sign_ins_by_token ON sign_ins (token_id, created_at)")
    db.execute("CREATE TABLE pace (batch_no INTEGER PRIMARY KEY REFERENCES batches, step REAL, moments BLOB NOT NULL)")


def m005_deduplicated(db: sqlite3.Connection) -> None:
    # Rows that share the answer of another: of each segment, and of the batch.
    for table in ("counts", "segments"):
        db.execute(f"ALTER TABLE {table} ADD COLUMN deduplicated INTEGER NOT NULL DEFAULT 0")


MIGRATIONS: tuple[Migration, ...] = (m001_initial, m002_service, m003_admission, m004_page, m005_deduplicated)


def migrate(db: sqlite3.Connection, migrations: Sequence[Migration] = MIGRATIONS) -> list[str]:
    """Apply the steps that the file lacks, within the caller's transaction; the names of those applied now."""
    db.execute("CREATE TABLE IF NOT EXISTS migrations (name TEXT PRIMARY KEY)")
    applied = {row[0] for row in db.execute("SELECT name FROM migrations")}
    unknown = applied - {step.__name__ for step in migrations}
    if unknown:
        raise LedgerError("ledger_too_new", f"written by a newer version: it has {', '.join(sorted(unknown))}")
    new = [step for step in migrations if step.__name__ not in applied]
    for step in new:
        step(db)
        db.execute("INSERT INTO migrations VALUES (?)", (step.__name__,))
    return [step.__name__ for step in new]
