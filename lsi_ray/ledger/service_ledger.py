"""The ledger of the service: batches with owners, submitted once however often they are sent, files, and tokens.

Every method is one transaction, as in `Ledger`. URLs and secrets never come in here. Raises LedgerError, beside those
of `Ledger`: `idempotency_conflict`, `no_such_file`, `file_in_use`, `no_such_token`, `illegal_transition`.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from lsi_ray.errors import LedgerError
from lsi_ray.ledger import batches, files, pace, sign_ins, submissions, tokens
from lsi_ray.ledger.database import Database
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.positions import pack, unpack
from lsi_ray.ledger.records import Batch
from lsi_ray.ledger.service_records import (
    BatchSize,
    File,
    Load,
    Moment,
    Request,
    Served,
    SignIn,
    Submitted,
    Token,
)
from lsi_ray.ledger.states import BatchStatus


class ServiceLedger(Ledger):
    # -- batches of callers

    def submit(self, one: Submitted) -> tuple[Served, bool]:
        """The batch, durable, and whether this call made it."""
        with self._database.transaction(durable=True) as db:
            batch_id, created = submissions.submit(db, one, self._clock())
            return submissions.served(db, batches.find(db, batch_id)), created

    def known_submission(self, one: Request) -> Served | None:
        """What `submit` would give without making anything."""
        with self._database.reading() as db:
            batch_id = submissions.repeated(db, one, self._clock())
            return submissions.served(db, batches.find(db, batch_id)) if batch_id is not None else None

    def count_alive(self, caller: str) -> int:
        with self._database.reading() as db:
            row = db.execute("SELECT count(*) FROM batches WHERE caller = ? AND erased = 0", (caller,)).fetchone()
            return int(row[0])

    def served(self, batch_id: str, caller: str | None = None) -> Served:
        """None as the caller: anybody's."""
        with self._database.reading() as db:
            row = batches.find(db, batch_id) if caller is None else submissions.owned(db, caller, batch_id)
            return submissions.served(db, row)

    def page(
        self, caller: str, *, limit: int, offset: int = 0, after: str | None = None, archived: bool = False
    ) -> tuple[Served, ...]:
        with self._database.reading() as db:
            return submissions.page(db, caller, limit=limit, offset=offset, after=after, archived=archived)

    def unfinished(self) -> tuple[Batch, ...]:
        """By age, every batch that there is still something to do for: those not erased, as terminal ones are."""
        with self._database.reading() as db:
            rows = db.execute(f"{batches.SELECT} WHERE erased = 0 ORDER BY batch_no").fetchall()
            return tuple(batches.read(db, row) for row in rows)

    def loads(self) -> tuple[Load, ...]:
        """By age, what every batch that is validating or running has done and may need."""
        with self._database.reading() as db:
            return submissions.loads(db)

    def note_pace(self) -> None:
        """Called every some seconds: what each running batch has done up to now."""
        with self._database.transaction(durable=False) as db:
            pace.note(db, submissions.loads(db), self._clock())

    def pace(self, batch_id: str) -> tuple[Moment, ...]:
        with self._database.reading() as db:
            return pace.read(db, batches.find(db, batch_id)["batch_no"])

    def has_waiting(self, model: str) -> bool:
        """Whether a running batch of the model has a shard that nobody has leased; 30 us."""
        with self._database.reading() as db:
            row = db.execute(
                "SELECT 1 FROM batches WHERE model = ? AND status = ? AND EXISTS"
                " (SELECT 1 FROM shards WHERE shards.batch_no = batches.batch_no AND state = 0) LIMIT 1",
                (model, BatchStatus.IN_PROGRESS),
            ).fetchone()
            return row is not None

    def session_model(self, session: int) -> str:
        with self._database.reading() as db:
            row = db.execute("SELECT model FROM sessions WHERE session = ?", (session,)).fetchone()
            if row is None:
                raise LedgerError("no_such_session", f"no session {session}")
            return str(row["model"])

    def count_by_status(self) -> dict[tuple[str, str], int]:
        """Batches by model and status."""
        with self._database.reading() as db:
            rows = db.execute("SELECT model, status, count(*) FROM batches GROUP BY model, status")
            return {(model, status): number for model, status, number in rows}

    def rows_by_model(self) -> dict[str, tuple[int, int]]:
        """Of running batches: rows not leased, and rows that are out."""
        with self._database.reading() as db:
            rows = db.execute(
                "SELECT model, sum(CASE WHEN state = 0 THEN todo ELSE 0 END), sum(CASE WHEN state IN (1, 2) THEN todo"
                " ELSE 0 END) FROM batches JOIN shards USING (batch_no) WHERE status = ? AND state < 3 GROUP BY model",
                (BatchStatus.IN_PROGRESS,),
            )
            return {model: (waiting, out) for model, waiting, out in rows}

    def set_model(self, batch_id: str, model: str) -> None:
        """The model that the rows name, while the batch is validating."""
        with self._database.transaction(durable=True) as db:
            row = batches.find(db, batch_id)
            if row["status"] != BatchStatus.VALIDATING:
                raise LedgerError("illegal_transition", f"batch {batch_id} is {row['status']}: its model stands")
            db.execute("UPDATE batches SET model = ? WHERE batch_no = ?", (model, row["batch_no"]))

    def reschedule(
        self, batch_id: str, *, deadline: float | None = None, window: str | None = None, priority: int | None = None
    ) -> None:
        """None leaves a value alone. `illegal_transition` for a terminal batch."""
        with self._database.transaction(durable=True) as db:
            row = batches.find(db, batch_id)
            if BatchStatus(row["status"]).terminal:
                raise LedgerError("illegal_transition", f"batch {batch_id} is {row['status']}: it stays as it is")
            db.execute(
                "UPDATE batches SET deadline = coalesce(?, deadline), priority = coalesce(?, priority)"
                " WHERE batch_no = ?",
                (deadline, priority, row["batch_no"]),
            )
            db.execute("UPDATE service SET window = coalesce(?, window) WHERE batch_no = ?", (window, row["batch_no"]))

    def archive(self, batch_id: str) -> None:
        self._change(batch_id, archived=1)

    def notice(self, batch_id: str, text: str) -> None:
        self._change(batch_id, notice=text)

    def warn(self, batch_id: str, warning: str) -> None:
        """Once, however often it is said."""
        with self._database.transaction(durable=True) as db:
            row = batches.find(db, batch_id)
            said = submissions.state(db, row).warnings
            if warning not in said:
                encoded = msgspec.json.encode((*said, warning)).decode()
                submissions.change(db, row["batch_no"], warnings=encoded)

    def begin_validation(self, batch_id: str) -> None:
        """Somebody looks into its input now; the first time counts."""
        with self._database.transaction(durable=True) as db:
            db.execute(
                "UPDATE service SET validation_begun_at = ? WHERE batch_no = ? AND validation_begun_at IS NULL",
                (self._clock(), batches.find(db, batch_id)["batch_no"]),
            )

    def set_size(self, batch_id: str, size: BatchSize) -> None:
        self._change(
            batch_id,
            planned_rows=size.rows,
            prompt_bytes=size.prompt_bytes,
            max_tokens=size.max_tokens,
            media=size.media,
        )

    def set_output_files(self, batch_id: str, output: str | None, error: str | None) -> None:
        self._change(batch_id, output_file_id=output, error_file_id=error)

    def set_failed_rows(self, batch_id: str, rows: tuple[int, ...]) -> None:
        """Rows that ended as errors, kept when the batch is erased: a retry runs them."""
        self._change(batch_id, failed_rows=pack(rows))

    def failed_rows(self, batch_id: str) -> tuple[int, ...] | None:
        """None when the batch never came to its output."""
        with self._database.reading() as db:
            batch_no = batches.find(db, batch_id)["batch_no"]
            row = db.execute("SELECT failed_rows FROM service WHERE batch_no = ?", (batch_no,)).fetchone()
            return unpack(row["failed_rows"]) if row is not None and row["failed_rows"] is not None else None

    def _change(self, batch_id: str, **columns: object) -> None:
        with self._database.transaction(durable=True) as db:
            submissions.change(db, batches.find(db, batch_id)["batch_no"], **columns)

    # -- files

    def add_file(self, file: File) -> File:
        with self._database.transaction(durable=True) as db:
            files.insert(db, file)
            return files.find(db, file.owner, file.file_id, self._clock())

    def file(self, owner: str, file_id: str) -> File:
        with self._database.reading() as db:
            return files.find(db, owner, file_id, self._clock())

    def files(
        self, owner: str, *, purpose: str | None = None, after: str | None = None, limit: int = 100, descending: bool
    ) -> tuple[File, ...]:
        with self._database.reading() as db:
            now = self._clock()
            return files.select(db, owner, now, purpose=purpose, after=after, limit=limit, descending=descending)

    def file_bytes(self, owner: str) -> int:
        """Of all files of a caller."""
        with self._database.reading() as db:
            row = db.execute("SELECT coalesce(sum(bytes), 0) FROM files WHERE owner = ?", (owner,)).fetchone()
            return int(row[0])

    def delete_file(self, owner: str, file_id: str) -> None:
        with self._database.transaction(durable=True) as db:
            files.delete(db, owner, file_id, self._clock())

    def expire_files(self) -> tuple[str, ...]:
        with self._database.transaction(durable=True) as db:
            return files.expire(db, self._clock())

    def known_files(self) -> frozenset[str]:
        with self._database.reading() as db:
            return files.known(db)

    # -- erasure

    def scrub(self) -> None:
        """Deleted rows are overwritten (`secure_delete`), but old pages stay in the WAL until it is emptied."""
        with self._database.reading() as db:
            db.execute("PRAGMA wal_checkpoint(TRUNCATE)")


class Accounts:
    """The tokens in a ledger's file, also while a service has the ledger open."""

    def __init__(self, path: Path, *, clock: Callable[[], float] = time.time) -> None:
        self._database = Database(path)
        self._clock = clock

    def close(self) -> None:
        self._database.close()

    def create(
        self, caller: str, *, name: str = "", scopes: tuple[str, ...] = tokens.SCOPES, expires_at: float | None = None
    ) -> tuple[Token, str]:
        with self._database.transaction(durable=True) as db:
            return tokens.create(db, caller, name, scopes, expires_at, self._clock())

    def check(self, text: str) -> Token | None:
        with self._database.reading() as db:
            return tokens.check(db, text, self._clock())

    def list(self) -> tuple[Token, ...]:
        with self._database.reading() as db:
            return tokens.select(db)

    def revoke(self, token_id: str) -> Token:
        with self._database.transaction(durable=True) as db:
            return tokens.revoke(db, token_id, self._clock())

    def sign_in(self, text: str, lifetime_s: float) -> SignIn | None:
        """For the holder of a token; None: it is not valid."""
        if self.check(text) is None:  # strangers do not make the disk work
            return None
        with self._database.transaction(durable=True) as db:
            return sign_ins.create(db, text, lifetime_s, self._clock())

    def signed_in(self, text: str) -> Token | None:
        with self._database.reading() as db:
            return sign_ins.check(db, text, self._clock())

    def sign_out(self, text: str) -> None:
        with self._database.transaction(durable=True) as db:
            sign_ins.end(db, text)
