from __future__ import annotations

import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.lock import WorkLock
from lsi_ray.ledger.migrations import MIGRATIONS, migrate
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.service_ledger import Accounts

COMMITTER = """
import os, sys
from pathlib import Path
from lsi_ray.ledger.ledger import Ledger
from lsi_ray.ledger.records import Answers, NewBatch, SegmentRef

ledger = Ledger(Path(sys.argv[1]))
die_at = int(sys.argv[2])
ledger.create_batch(NewBatch("b", "m"))
ledger.start_batch("b", 6400, 6400, 64)
session = ledger.open_session("m")
calls = 0

def trace(statement):
    global calls
    calls += 1
    if calls == die_at:
        os._exit(9)

with ledger.reading() as db:
    db.set_trace_callback(trace)
while True:
    for lease in ledger.lease(session, 64, 640).leases:
        rows = ledger.begin(session, lease.shard_id, "r")
        n = len(rows)
        answers = Answers("b", rows, (False,) * n, (1,) * n, (1,) * n, (0,) * n)
        ledger.commit(session, SegmentRef(f"s{lease.start}", 1, n, "x"), answers)
        os.write(1, b"%d\\n" % lease.start)
"""

HOLDER = """
import sys, time
from pathlib import Path
from lsi_ray.ledger.lock import WorkLock
lock = WorkLock(Path(sys.argv[1]), wait_s=0)
print("held", flush=True)
time.sleep(60)
"""


def python(code: str, *args: object) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", code, *map(str, args)]
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[3])


@pytest.mark.parametrize("die_at", [1, 5, 17, 30, 31, 38, 41, 100, 333])
def test_a_process_that_dies_between_any_two_statements_loses_nothing_it_told(tmp_path, die_at):
    """SIGKILL-like exits before the n-th SQL statement: what was told is there, what was not is whole or absent."""
    process = python(COMMITTER, tmp_path / "ledger.sqlite", die_at)
    told = [int(line) for line in process.communicate(timeout=20)[0].split()]
    assert process.returncode == 9
    ledger = Ledger(tmp_path / "ledger.sqlite")
    check_invariants(ledger)
    names = [ref.name for ref in ledger.segments("b")]
    assert names[: len(told)] == [f"s{start}" for start in told]
    assert len(names) - len(told) in (0, 1)
    session = ledger.open_session("m")
    check_invariants(ledger)
    assert sum(len(lease.todo()) for lease in ledger.lease(session, 10_000, 10_000).leases) == 6400 - 64 * len(names)
    ledger.close()


def test_what_is_told_is_synced_and_leases_are_not(work):
    def synced() -> bool:
        with work.ledger.reading() as db:
            return db.execute("PRAGMA synchronous").fetchone()[0] >= 2

    work.started("b", 128)
    session = work.ledger.open_session("m")
    assert synced()
    lease = work.ledger.lease(session, 128, 128).leases[0]
    assert not synced()
    work.ledger.begin(session, lease.shard_id, "r1")
    assert not synced()
    work.commit(session, "b", range(4))
    assert synced()
    work.ledger.release(session, [])
    assert not synced()
    assert work.ledger.begin(session, lease.shard_id, "r2") is None
    assert synced()


def test_a_work_dir_in_use_names_its_holder_and_is_free_when_it_dies(tmp_path):
    holder = python(HOLDER, tmp_path / "lock")
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        with pytest.raises(LedgerError, match=f"in use by process {holder.pid}$") as caught:
            Ledger(tmp_path / "ledger.sqlite", lock_wait_s=0)
        assert caught.value.code == "work_dir_in_use"
        os.kill(holder.pid, signal.SIGKILL)
        Ledger(tmp_path / "ledger.sqlite", lock_wait_s=5).close()
    finally:
        holder.kill()
        holder.communicate()


def test_the_lock_is_waited_for_no_longer_than_told(tmp_path):
    lock = WorkLock(tmp_path / "lock")
    began = time.monotonic()
    with pytest.raises(LedgerError, match=f"process {os.getpid()}"):
        WorkLock(tmp_path / "lock", wait_s=0.1)
    assert 0.1 <= time.monotonic() - began < 2
    lock.release()
    lock.release()
    WorkLock(tmp_path / "lock", wait_s=0).release()


def test_the_files_are_their_owners_only(tmp_path):
    ledger = Ledger(tmp_path / "ledger.sqlite")
    ledger.create_batch(NewBatch("b", "m"))
    modes = {path.name: path.stat().st_mode & 0o777 for path in tmp_path.iterdir()}
    assert modes == dict.fromkeys(["ledger.sqlite", "ledger.sqlite-wal", "ledger.sqlite-shm", "lock"], 0o600)
    ledger.close()


def test_migrations_apply_once_and_in_order():
    applied = []

    def m001_one(_: sqlite3.Connection) -> None:
        applied.append(1)

    def m002_two(_: sqlite3.Connection) -> None:
        applied.append(2)

    db = sqlite3.connect(":memory:")
    assert migrate(db, [m001_one]) == ["m001_one"]
    assert migrate(db, [m001_one, m002_two]) == ["m002_two"]
    assert migrate(db, [m001_one, m002_two]) == []
    assert applied == [1, 2]
    with pytest.raises(LedgerError, match="newer version: it has m002_two"):
        migrate(db, [m001_one])
    db.close()


def test_a_ledger_of_a_newer_version_is_refused_and_the_lock_given_back(work):
    with work.ledger.reading() as db:
        db.execute("INSERT INTO migrations VALUES ('m999_future')")
        assert [row[0] for row in db.execute("SELECT name FROM migrations")][:-1] == [m.__name__ for m in MIGRATIONS]
    work.ledger.close()
    for _ in range(2):
        with pytest.raises(LedgerError) as caught:
            work.open()
        assert caught.value.code == "ledger_too_new"


def test_a_file_that_is_no_ledger_is_named(tmp_path):
    (tmp_path / "ledger.sqlite").write_bytes(b"no database" * 1000)
    with pytest.raises(LedgerError, match=r"ledger\.sqlite") as caught:
        Ledger(tmp_path / "ledger.sqlite")
    assert caught.value.code == "ledger_unreadable"


def test_a_full_disk_changes_nothing_and_is_survived(work):
    work.started("b", 6400)
    session = work.ledger.open_session("m")
    with work.ledger.reading() as db:
        pages = db.execute("PRAGMA page_count").fetchone()[0]
        db.execute(f"PRAGMA max_page_count={pages}")
    done = 0

    def commit_until_full():
        nonlocal done
        for done in range(0, 6400, 64):
            work.commit(session, "b", range(done, done + 64))

    with pytest.raises(LedgerError) as caught:
        commit_until_full()
    assert caught.value.code == "work_dir_full"
    check_invariants(work.ledger)
    with work.ledger.reading() as db:
        db.execute("PRAGMA max_page_count=1000000")
    assert work.commit(session, "b", range(done, done + 64)).accepted == 64
    check_invariants(work.ledger)


def test_another_process_that_comes_and_goes_takes_nothing_away(work):
    """`lsi token create` beside a running service: it must not take itself for the last one to close the file."""
    path = work.folder / "ledger.sqlite"
    here = Accounts(path)
    script = "import sys, pathlib; from lsi_ray.ledger.service_ledger import Accounts as A; "
    script += "a = A(pathlib.Path(sys.argv[1])); a.create('x'); a.close()"
    subprocess.run([sys.executable, "-c", script, str(path)], check=True)
    work.started("b", 64)
    copied = work.folder / "after the kill"
    copied.mkdir()
    for file in work.folder.glob("ledger.sqlite*"):
        shutil.copy(file, copied)
    here.close()
    survivor = Ledger(copied / "ledger.sqlite", clock=work.clock, lock_wait_s=0)
    assert survivor.batch("b").rows_total == 64
    survivor.close()
