"""One SQLite connection with transactions whose durability is chosen by what they promise.

Durable transactions (`synchronous=FULL`: one fdatasync of the WAL, 0.2 to 3.2 ms by the mood of the disk measured)
carry what somebody is told: batches, their status, answers. The others (`NORMAL`: no sync, 0.02 ms) carry leases. They
survive the death of the process; a power cut may take the last of them back, together with every process that knew of
them. The WAL keeps order, so that what survives is always a prefix of the history.
"""

from __future__ import annotations

import os
import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.migrations import migrate
from lsi_ray.ledger.workdir import sync_folder
from lsi_ray.space import FULL


def _create(path: Path) -> None:
    """An empty file, open to its owner only. One that exists is not touched: closing a second descriptor of it drops
    the POSIX locks of every connection of this process, and then another process that closes its own connection takes
    itself for the last one and deletes the WAL under us, with all that is committed to it from then on."""
    with suppress(FileExistsError):
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
        sync_folder(path.parent)


class Database:
    def __init__(self, path: Path) -> None:
        _create(path)
        self._mutex = threading.RLock()
        self._durable: bool | None = None
        # check_same_thread: the mutex serialises the threads of an actor
        self._connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, cached_statements=256)
        self._connection.row_factory = sqlite3.Row
        try:
            self._connection.execute("PRAGMA journal_mode=WAL")
            self._connection.execute("PRAGMA foreign_keys=ON")
            self._connection.execute("PRAGMA secure_delete=ON")  # what is erased is overwritten
            self._connection.execute("PRAGMA busy_timeout=5000")  # for a person with the sqlite3 shell, reading
            with self.transaction(durable=True) as db:
                migrate(db)
            # A killed process may have left commits in the WAL that it had not synced yet. We can read them, so others
            # will: from now on not even a power cut may take them back. It also empties the WAL of what was erased.
            self._connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        except sqlite3.DatabaseError as error:
            self._connection.close()
            raise LedgerError("ledger_unreadable", f"cannot open the ledger {path}: {error}") from error
        except LedgerError:
            self._connection.close()
            raise

    @contextmanager
    def transaction(self, *, durable: bool) -> Iterator[sqlite3.Connection]:
        """All or nothing; LedgerError `work_dir_full` or `ledger_io` when the disk is or fails; nothing has changed."""
        with self._mutex:
            try:
                self._synchronous(durable)
                self._connection.execute("BEGIN IMMEDIATE")
                yield self._connection
                self._connection.execute("COMMIT")
            except sqlite3.OperationalError as error:
                self._rollback()
                if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:  # our SQL is wrong, not the disk
                    raise
                code = FULL if error.sqlite_errorcode == sqlite3.SQLITE_FULL else "ledger_io"
                raise LedgerError(code, f"the ledger could not be written: {error}") from error
            except BaseException:
                self._rollback()
                raise

    @contextmanager
    def reading(self) -> Iterator[sqlite3.Connection]:
        """LedgerError `ledger_io` when the disk fails."""
        with self._mutex:
            try:
                yield self._connection
            except sqlite3.OperationalError as error:
                if error.sqlite_errorcode == sqlite3.SQLITE_ERROR:
                    raise
                raise LedgerError("ledger_io", f"the ledger could not be read: {error}") from error

    def close(self) -> None:
        with self._mutex:
            self._connection.close()

    def _synchronous(self, durable: bool) -> None:
        if durable != self._durable:
            self._connection.execute(f"PRAGMA synchronous={'FULL' if durable else 'NORMAL'}")
            self._durable = durable

    def _rollback(self) -> None:
        with suppress(sqlite3.OperationalError):  # a failed COMMIT may have ended the transaction already
            self._connection.execute("ROLLBACK")
