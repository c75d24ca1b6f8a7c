from __future__ import annotations

import pickle
from itertools import product

import pytest

from lsi_ray.errors import Finding, LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.records import NewBatch, SegmentRef
from lsi_ray.ledger.states import TRANSITIONS, BatchStatus, check

S = BatchStatus


def test_terminal_is_terminal_and_every_state_can_end():
    for status in S:
        assert status.terminal == (status in {S.FAILED, S.COMPLETED, S.EXPIRED, S.CANCELLED})
        seen, todo = set(), [status]
        while todo:
            at = todo.pop()
            if at not in seen:
                seen.add(at)
                todo += TRANSITIONS[at]
        assert any(at.terminal for at in seen)


@pytest.mark.parametrize(("current", "to"), list(product(S, S)))
def test_only_declared_steps_pass(current, to):
    if to in TRANSITIONS[current]:
        check(current, to)
    else:
        with pytest.raises(LedgerError, match=f"{current} cannot become {to}") as caught:
            check(current, to)
        assert caught.value.code == "illegal_transition"


def test_a_batch_from_creation_to_erasure(work):
    ledger = work.ledger
    ledger.create_batch(NewBatch("b", "m", input="https://x/in", metadata={"k": "v"}, options={"strict": False}))
    ledger.start_batch("b", 130, 128, 64, SegmentRef("bad", 1, 2, "s"))
    session = ledger.open_session("m")
    answer = ledger.lease(session, 128, 512)
    assert [(lease.start, lease.stop, lease.attempt, lease.exclusive) for lease in answer.leases] == [
        (0, 64, 1, False),
        (64, 128, 1, False),
    ]
    for lease in answer.leases:
        assert ledger.begin(session, lease.shard_id, "r") == tuple(range(lease.start, lease.stop)) == lease.todo()
    assert ledger.progress("b").outstanding == 128
    assert ledger.lease(session, 128, 512).state == "wait"
    assert work.commit(session, "b", range(64)).batch_finished is False
    work.clock.now = 1005
    assert work.commit(session, "b", range(64, 128)).batch_finished is True
    assert ledger.lease(session, 128, 512).state == "idle"

    progress = ledger.progress("b")
    assert (progress.total, progress.completed, progress.failed) == (130, 128 - 43, 43 + 2)
    assert (progress.prompt_tokens, progress.completion_tokens, progress.cached_tokens) == (1280, 256, 640)
    assert (progress.rows_begun, progress.rows_rerun, progress.outstanding) == (128, 0, 0)
    assert [ref.name for ref in ledger.segments("b")] == ["bad", "b-0-64", "b-64-64"]
    batch = ledger.batch("b")
    assert (batch.status, batch.outcome, batch.metadata, batch.input) == (
        S.FINALIZING,
        S.COMPLETED,
        {"k": "v"},
        "https://x/in",
    )
    assert batch.times == {"validating": 1000, "in_progress": 1000, "finalizing": 1005}

    assert ledger.deliver("b", S.COMPLETED).status == S.COMPLETED
    assert ledger.deliver("b", S.COMPLETED).status == S.COMPLETED
    ledger.erase("b")
    ledger.erase("b")
    assert ledger.segments("b") == []
    assert ledger.progress("b").completed == 85
    assert ledger.batch("b").erased
    check_invariants(ledger)
    assert pickle.loads(pickle.dumps((batch, progress, answer))) == (batch, progress, answer)


def test_creating_again_gives_the_same_batch_unless_its_content_changed(work):
    new = NewBatch("b", "m", deadline=2000.0, input="a")
    first = work.ledger.create_batch(new)
    assert work.ledger.create_batch(NewBatch("b", "m", deadline=2010.0, input="a")) == first
    with pytest.raises(LedgerError, match="other content: input") as caught:
        work.ledger.create_batch(NewBatch("b", "m", deadline=2000.0, input="b"))
    assert caught.value.code == "batch_conflict"


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", ".hidden", "a b", "é", "a" * 129, "a\n"])
def test_ids_that_cannot_name_a_folder_are_refused(work, name):
    with pytest.raises(LedgerError) as caught:
        work.ledger.create_batch(NewBatch(name, "m"))
    assert caught.value.code == "unsafe_name"


def test_starting_again_is_the_same_start_or_refused(work):
    work.started("b", 100)
    assert work.ledger.start_batch("b", 100, 100, 64).plan_rows == 100
    with pytest.raises(LedgerError, match="another plan"):
        work.ledger.start_batch("b", 101, 101, 64)
    check_invariants(work.ledger)


@pytest.mark.parametrize(
    ("total", "plan", "shard", "segment", "failed"),
    [(10, 11, 64, 0, None), (10, 8, 64, 0, None), (10, 8, 64, 3, None), (10, 8, 0, 2, None), (10, 8, 64, 2, 3)],
)
def test_a_start_that_does_not_add_up_changes_nothing(work, total, plan, shard, segment, failed):
    work.ledger.create_batch(NewBatch("b", "m"))
    ref = SegmentRef("bad", 1, segment, "s") if segment else None
    with pytest.raises(LedgerError, match="does not add up"):
        work.ledger.start_batch("b", total, plan, shard, ref, failed)
    assert work.ledger.batch("b").status == S.VALIDATING


def test_shards_end_where_the_plan_says(work):
    work.ledger.create_batch(NewBatch("b", "m"))
    for _ in range(2):  # the answer to the first may get lost
        assert work.ledger.start_batch("b", 100, 100, 64, shard_stops=(10, 90, 100)).shard_rows == 80
    check_invariants(work.ledger)
    leases = work.ledger.lease(work.ledger.open_session("m"), 1000, 1000).leases
    assert [(lease.start, lease.stop) for lease in leases] == [(0, 10), (10, 90), (90, 100)]


@pytest.mark.parametrize("stops", [(), (10,), (10, 10, 12), (10, 5, 12), (10, 12, 13), (0, 12), (-1, 12)])
def test_shards_that_do_not_part_the_plan_change_nothing(work, stops):
    work.ledger.create_batch(NewBatch("b", "m"))
    with pytest.raises(LedgerError, match="does not add up"):
        work.ledger.start_batch("b", 12, 12, 64, shard_stops=stops)
    assert work.ledger.batch("b").status == S.VALIDATING


def test_a_batch_without_a_good_row_goes_straight_to_finalizing(work):
    work.ledger.create_batch(NewBatch("b", "m"))
    batch = work.ledger.start_batch("b", 3, 0, 64, SegmentRef("bad", 1, 3, "s"))
    assert (batch.status, batch.outcome) == (S.FINALIZING, S.COMPLETED)
    assert work.ledger.progress("b").failed == 3
    check_invariants(work.ledger)


def test_failing_keeps_every_finding_and_ends_the_leases(work):
    work.started("b", 100)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 512).leases[0]
    findings = (Finding("invalid_json", "line 3 is not JSON", line=3), Finding("unknown_model", "no such model"))
    assert work.ledger.fail_batch("b", findings).findings == findings
    assert work.ledger.fail_batch("b", ()).findings == findings
    assert work.ledger.begin(session, lease.shard_id, "r") is None
    assert work.ledger.lease(session, 64, 512).state == "idle"
    check_invariants(work.ledger)


def test_cancel_freezes_what_is_finished(work):
    work.started("b", 128)
    session = work.ledger.open_session("m")
    leases = work.ledger.lease(session, 128, 512).leases
    work.ledger.begin(session, leases[0].shard_id, "r")
    work.commit(session, "b", range(10))
    assert work.ledger.request_cancel("b").status == S.CANCELLING
    assert work.commit(session, "b", range(10, 64)).accepted == 0
    assert work.ledger.begin(session, leases[1].shard_id, "r") is None
    assert work.ledger.progress("b").outstanding == 0
    check_invariants(work.ledger)
    with pytest.raises(LedgerError, match="heading for cancelled"):
        work.ledger.deliver("b", S.COMPLETED)
    assert work.ledger.deliver("b", S.CANCELLED).status == S.CANCELLED
    assert work.ledger.request_cancel("b").status == S.CANCELLED
    check_invariants(work.ledger)


def test_cancel_during_validation_stops_the_start(work):
    work.ledger.create_batch(NewBatch("b", "m"))
    work.ledger.request_cancel("b")
    with pytest.raises(LedgerError, match="cancelling cannot become in_progress"):
        work.ledger.start_batch("b", 5, 5, 64)
    assert work.ledger.deliver("b", S.CANCELLED).times["cancelled"] == 1000


def test_the_deadline_expires_a_running_batch_once_and_no_clock_revives_it(work):
    work.started("late", 64, deadline=1100.0)
    work.started("later", 64, deadline=1200.0)
    work.started("never", 64)
    assert work.ledger.expire_due() == ()
    work.clock.now = 1100
    assert work.ledger.expire_due() == ("late",)
    assert work.ledger.expire_due() == ()
    work.clock.now = 500
    assert work.ledger.expire_due() == ()
    batch = work.ledger.batch("late")
    assert (batch.status, batch.outcome) == (S.FINALIZING, S.EXPIRED)
    with pytest.raises(LedgerError, match="heading for expired"):
        work.ledger.deliver("late", S.COMPLETED)
    assert work.ledger.deliver("late", S.EXPIRED).status == S.EXPIRED
    check_invariants(work.ledger)


def test_a_batch_that_finished_before_its_deadline_is_completed(work):
    work.started("b", 5, deadline=1100.0)
    work.commit(work.ledger.open_session("m"), "b", range(5))
    work.clock.now = 2000
    assert work.ledger.expire_due() == ()
    assert work.ledger.batch("b").outcome == S.COMPLETED


def test_transition_takes_named_steps_only(work):
    work.started("b", 5)
    with pytest.raises(LedgerError, match="start_batch, commit or expire_due only"):
        work.ledger.transition("b", S.FINALIZING)
    with pytest.raises(LedgerError, match="heading for nowhere"):
        work.ledger.transition("b", S.COMPLETED)
    assert work.ledger.transition("b", S.CANCELLING).status == S.CANCELLING
    assert work.ledger.transition("b", S.CANCELLED).status == S.CANCELLED


def test_listing_is_newest_first_filtered_and_paged(work):
    for i in range(5):
        work.ledger.create_batch(NewBatch(f"b{i}", "even" if i % 2 == 0 else "odd", caller="me" if i < 3 else "you"))
    work.ledger.request_cancel("b0")

    def ids(**kwargs):
        return [batch.batch_id for batch in work.ledger.batches(**kwargs)]

    assert ids() == ["b4", "b3", "b2", "b1", "b0"]
    assert ids(limit=2, after="b3") == ["b2", "b1"]
    assert ids(model="even", caller="me") == ["b2", "b0"]
    assert ids(statuses=(S.CANCELLING, S.FAILED)) == ["b0"]


def test_an_unknown_batch_is_named(work):
    with pytest.raises(LedgerError, match="'nope'") as caught:
        work.ledger.progress("nope")
    assert caught.value.code == "no_such_batch"


def test_erasing_a_living_batch_is_refused(work):
    work.started("b", 5)
    with pytest.raises(LedgerError, match="only a terminal one"):
        work.ledger.erase("b")
