from __future__ import annotations

import sqlite3

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.records import Answers, ErrorNote, NewBatch, SegmentRef
from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.service_records import File, Submitted
from lsi_ray.ledger.states import BatchStatus


def submitted(batch_id, body="digest", key=None, caller="ann", **new):
    return Submitted(NewBatch(batch_id, "m", caller=caller, **new), body, key, within_s=120.0)


def test_the_same_request_makes_one_batch(work):
    first, created = work.ledger.submit(submitted("a"))
    again, created_again = work.ledger.submit(submitted("b"))
    assert (created, created_again) == (True, False)
    assert again == first
    assert work.ledger.submit(submitted("c", caller="bob"))[1]
    work.clock.now += 121
    assert work.ledger.submit(submitted("d"))[0].batch.batch_id == "d"


def test_a_failed_batch_is_not_given_for_the_same_body_again(work):
    work.ledger.submit(submitted("a"))
    work.ledger.fail_batch("a", ())
    assert work.ledger.submit(submitted("b"))[1]


def test_a_key_holds_for_days_and_for_one_request(work):
    work.ledger.submit(submitted("a", key="k"))
    work.clock.now += 86_400
    assert not work.ledger.submit(submitted("b", key="k"))[1]
    with pytest.raises(LedgerError) as caught:
        work.ledger.submit(submitted("c", body="other", key="k"))
    assert caught.value.code == "idempotency_conflict"
    assert work.ledger.submit(submitted("d", body="other", key="k", caller="bob"))[1]


def test_pages_are_newest_first_and_ones_own(work):
    for number in range(5):
        work.ledger.submit(submitted(f"a{number}", body=str(number)))
        work.ledger.submit(submitted(f"b{number}", body=str(number), caller="bob"))
    work.ledger.archive("a3")

    def ids(**how):
        return [one.batch.batch_id for one in work.ledger.page("ann", **{"limit": 10, **how})]

    assert ids() == ["a4", "a2", "a1", "a0"]
    assert ids(archived=True) == ["a4", "a3", "a2", "a1", "a0"]
    assert ids(limit=2, offset=1) == ["a2", "a1"]
    assert ids(limit=2, after="a2") == ["a1", "a0"]
    with pytest.raises(LedgerError):
        ids(after="b2")
    with pytest.raises(LedgerError):
        work.ledger.served("b0", "ann")


def failing(work, session, batch_id, name, positions, code):
    notes = tuple(ErrorNote(i, p, code, f"row {p}", f"c{p}") for i, p in enumerate(positions))
    n = len(positions)
    answers = Answers(batch_id, tuple(positions), (True,) * n, (1,) * n, (0,) * n, (0,) * n, notes)
    return work.ledger.commit(session, SegmentRef(name, 1, n, name), answers)


def test_the_digest_counts_accepted_rows_by_code(work):
    work.started("b", 128)
    session = work.ledger.open_session("m")
    failing(work, session, "b", "s1", [7, 3], "bad")
    failing(work, session, "b", "s2", [3, 9], "bad")
    failing(work, session, "b", "s3", [20], "other")
    digest = work.ledger.error_digest("b")
    assert [(one.code, one.rows, one.row, one.message) for one in digest] == [
        ("bad", 3, 3, "row 3"),
        ("other", 1, 20, "row 20"),
    ]
    work.ledger.disown("b", "s1")
    assert [(one.code, one.rows, one.row) for one in work.ledger.error_digest("b")] == [("bad", 1, 9), ("other", 1, 20)]
    check_invariants(work.ledger)


def test_erasure_keeps_counts_and_drops_what_users_wrote(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    failing(work, session, "b", "s1", range(64), "bad")
    work.ledger.deliver("b", BatchStatus.COMPLETED)
    work.ledger.erase("b")
    assert [(one.code, one.rows, one.message, one.custom_id) for one in work.ledger.error_digest("b")] == [
        ("bad", 64, "", None)
    ]
    work.ledger.scrub()
    kept = b"".join(path.read_bytes() for path in work.folder.iterdir())
    assert b"row 17" not in kept
    assert b"c17" not in kept


def test_a_terminal_batch_is_not_rescheduled(work):
    work.ledger.submit(submitted("a"))
    work.ledger.fail_batch("a", ())
    with pytest.raises(LedgerError):
        work.ledger.reschedule("a", priority=3)


def test_what_is_said_of_a_batch(work):
    work.ledger.submit(submitted("a", window="24h", deadline=5000.0))
    work.ledger.notice("a", "waits")
    work.ledger.warn("a", "careful")
    work.ledger.warn("a", "careful")
    work.ledger.set_output_files("a", "file-1", None)
    work.ledger.set_failed_rows("a", (1, 5, 900))
    work.ledger.reschedule("a", deadline=9000.0, window="7d")
    served = work.ledger.served("a")
    assert (served.state.notice, served.state.warnings, served.state.output_file_id) == (
        "waits",
        ("careful",),
        "file-1",
    )
    assert (served.batch.window, served.batch.deadline) == ("7d", 9000.0)
    assert work.ledger.failed_rows("a") == (1, 5, 900)


def test_batches_are_alive_until_erased(work):
    work.ledger.submit(submitted("a"))
    work.ledger.submit(submitted("b", body="2"))
    work.ledger.fail_batch("a", ())
    assert [batch.batch_id for batch in work.ledger.unfinished()] == ["a", "b"]
    work.ledger.erase("a")
    assert [batch.batch_id for batch in work.ledger.unfinished()] == ["b"]


def test_files_belong_to_their_owner_and_expire(work):
    for number in range(3):
        expires = 2000.0 if number == 0 else None
        work.ledger.add_file(File(f"f{number}", "ann", "in.jsonl", 10, "batch", work.clock.now, expires))
    assert [file.file_id for file in work.ledger.files("ann", descending=True)] == ["f2", "f1", "f0"]
    assert [file.file_id for file in work.ledger.files("ann", after="f0", descending=False)] == ["f1", "f2"]
    for owner, file_id in (("bob", "f1"), ("ann", "f9")):
        with pytest.raises(LedgerError):
            work.ledger.file(owner, file_id)
    work.clock.now = 2000.0
    assert [file.file_id for file in work.ledger.files("ann", descending=False)] == ["f1", "f2"]
    assert work.ledger.expire_files() == ("f0",)


def test_a_file_in_use_stays(work):
    work.ledger.add_file(File("f", "ann", "in.jsonl", 10, "batch", work.clock.now, None))
    work.ledger.submit(submitted("a", options={"input_file_id": "f"}))
    with pytest.raises(LedgerError) as caught:
        work.ledger.delete_file("ann", "f")
    assert caught.value.code == "file_in_use"
    work.ledger.fail_batch("a", ())
    work.ledger.delete_file("ann", "f")
    assert not work.ledger.files("ann", descending=True)


def test_tokens_are_checked_beside_the_running_ledger(work):
    accounts = Accounts(work.folder / "ledger.sqlite", clock=work.clock)
    token, text = accounts.create("ann", expires_at=5000.0)
    assert accounts.check(text) == token
    for wrong in (text[:-1], text + "x", "", "lsi-", f"lsi-{token.token_id}-", "sk-x-y", "lsi-\ud800-x"):
        assert accounts.check(wrong) is None
    work.clock.now = 5000.0
    assert accounts.check(text) is None
    _, second = accounts.create("ann", scopes=("read",))
    accounts.revoke(accounts.check(second).token_id)
    assert accounts.check(second) is None
    assert len(accounts.list()) == 2
    accounts.close()


def test_no_token_is_in_the_file(work):
    accounts = Accounts(work.folder / "ledger.sqlite", clock=work.clock)
    _, text = accounts.create("ann")
    accounts.close()
    work.ledger.scrub()
    assert text.split("-", 2)[2].encode() not in (work.folder / "ledger.sqlite").read_bytes()


def test_an_older_ledger_is_brought_up_to_date(work):
    work.started("b", 64)
    work.ledger.close()
    with sqlite3.connect(work.folder / "ledger.sqlite") as db:
        for table in ("service", "errors", "tokens", "files", "idempotency"):
            db.execute(f"DROP TABLE {table}")
        for index in ("batches_by_caller", "batches_alive"):
            db.execute(f"DROP INDEX {index}")
        db.execute("DELETE FROM migrations WHERE name = 'm002_service'")
    db.close()
    work.ledger = work.open()
    assert work.ledger.served("b").state.notice == ""
