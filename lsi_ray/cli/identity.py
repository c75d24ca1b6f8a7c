"""What a work dir was made for: the same command goes on with it, another one is refused."""

from __future__ import annotations

import fcntl
import hashlib
import secrets
import time
from dataclasses import dataclass
from pathlib import Path

import msgspec

from lsi_ray.config import Config, cache_folder
from lsi_ray.errors import ConfigError, LedgerError
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.workdir import WorkDir, atomic_write
from lsi_ray.storage.location import Location


@dataclass(frozen=True, slots=True)
class Identity:
    """Written first and deleted last: a work dir without one is a fresh one."""

    batch_id: str
    source: str
    output: str
    model: str
    engine: str
    """A digest of what answers depend on: with another engine, a resumed run would mix two of them."""
    max_rows: int | None
    strict: bool


def new_identity(source: Location, target: Location, config: Config, max_rows: int | None, strict: bool) -> Identity:
    batch_id = f"batch_{time.strftime('%Y%m%d')}_{secrets.token_hex(8)}"
    engine = hashlib.sha256(config.engine.model_dump_json().encode()).hexdigest()[:16]
    return Identity(batch_id, _place(source), _place(target), config.model, engine, max_rows, strict)


def default_work_dir(identity: Identity) -> Path:
    """One for each input, output and engine: another config begins afresh beside what the first one left."""
    key = "\0".join((identity.source, identity.output, identity.model, identity.engine))
    return cache_folder() / "runs" / hashlib.sha256(key.encode()).hexdigest()[:16]


def identify(work: WorkDir, fresh: Identity) -> Identity:
    """The identity in the work dir, if it is that of this command; else `fresh`, now written there."""
    with (work.path / "run.lock").open("ab") as lock:
        # Two first starts at the same instant would each write an identity, and answer two batches.
        fcntl.flock(lock, fcntl.LOCK_EX)
        known = _known(work)
        if known is not None and not _cleaned_up(work, known):
            _check_same(work, known, fresh)
            return known
        atomic_write(_path(work), msgspec.json.encode(fresh))
        return fresh


def is_identified(work: WorkDir) -> bool:
    return _path(work).exists()


def forget(work: WorkDir) -> None:
    _path(work).unlink(missing_ok=True)


def _known(work: WorkDir) -> Identity | None:
    try:
        return msgspec.json.decode(_path(work).read_bytes(), type=Identity)
    except FileNotFoundError:
        return None


def _cleaned_up(work: WorkDir, known: Identity) -> bool:
    """Whether it was delivered, and killed between the erasure of its rows and that of its identity."""
    ledger = Ledger(work.ledger)
    try:
        if not ledger.batch(known.batch_id).erased:
            return False
    except LedgerError as error:
        if error.code != "no_such_batch":
            raise
        return False
    finally:
        ledger.close()
    work.erase_batch(known.batch_id)
    return True


def _check_same(work: WorkDir, known: Identity, fresh: Identity) -> None:
    for name in ("source", "output", "model", "engine", "max_rows", "strict"):
        old, new = getattr(known, name), getattr(fresh, name)
        if old != new:
            raise ConfigError(
                f"the work dir {work.path} belongs to a run with another {name}: {old!r}, not {new!r}; "
                "take another --work-dir, or delete this one to begin again"
            )


def _place(location: Location) -> str:
    """Safe to write down. Absolute: `in.tar` in another folder is another input."""
    return str(location.path.resolve() if location.path else location)


def _path(work: WorkDir) -> Path:
    return work.path / "run.json"
