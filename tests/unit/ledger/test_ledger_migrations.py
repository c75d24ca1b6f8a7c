from __future__ import annotations

import sqlite3

from lsi_ray.ledger.database import Database
from lsi_ray.ledger.migrations import MIGRATIONS, migrate
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import BatchSize, Submitted


def test_a_ledger_of_the_first_service_goes_on(tmp_path):
    """Batches written before m003 have no size, and nobody knows whether their validation had begun."""
    path = tmp_path / "ledger.sqlite"
    with sqlite3.connect(path, isolation_level=None) as db:
        assert migrate(db, MIGRATIONS[:2]) == ["m001_initial", "m002_service"]
        db.execute(
            "INSERT INTO batches (batch_id, request, model, caller, priority, status, created_at) VALUES ('old',"
            """ '{"input":"","output":"","window":"24h","metadata":{},"options":{}}', 'm', 'ann', 0,"""
            " 'validating', 1.0)"
        )
        db.execute("INSERT INTO counts (batch_no) VALUES (1)")
        db.execute("INSERT INTO service (batch_no, prompt_bytes, retries) VALUES (1, 77, 1)")
    Database(path).close()
    ledger = ServiceLedger(path, lock_wait_s=0)
    state = ledger.served("old").state
    assert (state.size, state.validation_begun, state.retries) == (BatchSize(prompt_bytes=77), False, 1)
    [load] = ledger.loads()
    assert (load.batch_id, load.caller, load.size.rows) == ("old", "ann", 0)
    ledger.begin_validation("old")
    ledger.set_size("old", BatchSize(3, 10, 20, 1))
    assert ledger.served("old").state.size == BatchSize(3, 10, 20, 1)
    new = NewBatch("again", "m", caller="ann")
    ledger.submit(Submitted(new, "digest", None, 120.0, retry_root="old"))
    ledger.submit(Submitted(new, "digest", None, 120.0, retry_root="old"))
    assert ledger.served("old").state.retries == 2
    ledger.close()
