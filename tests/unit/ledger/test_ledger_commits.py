from __future__ import annotations

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.records import Answers, NewBatch, ResultLine, SegmentRef
from lsi_ray.ledger.states import BatchStatus


def test_a_segment_committed_twice_counts_once(work):
    work.started("b", 128)
    session = work.ledger.open_session("m")
    first = work.commit(session, "b", range(64))
    before = work.ledger.progress("b")
    assert work.commit(session, "b", range(64)) == first
    assert work.ledger.progress("b") == before
    assert len(work.ledger.segments("b")) == 1
    last = work.commit(session, "b", range(64, 128))
    assert work.commit(session, "b", range(64, 128)) == last
    assert last.batch_finished
    check_invariants(work.ledger)


def test_the_first_answer_to_a_row_wins(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    assert work.commit(session, "b", [5, 1, 9], "one").accepted == 3
    assert work.commit(session, "b", [9, 10, 1], "two").accepted == 1
    assert work.commit(session, "b", [1, 5], "three").accepted == 0
    assert [(ref.name, ref.refused) for ref in work.ledger.segments("b")] == [("one", ()), ("two", (1, 9))]
    assert work.ledger.progress("b").prompt_tokens == 40
    check_invariants(work.ledger)


def test_a_commit_may_span_shards_in_any_order(work):
    work.started("b", 300, shard_rows=10)
    session = work.ledger.open_session("m")
    assert work.commit(session, "b", list(range(299, -1, -1))).batch_finished
    check_invariants(work.ledger)


def test_a_stale_sessions_results_are_good_results(work):
    work.started("b", 64)
    old = work.ledger.open_session("m")
    lease = work.ledger.lease(old, 64, 64).leases[0]
    work.ledger.begin(old, lease.shard_id, "r1")
    new = work.ledger.open_session("m")
    again = work.ledger.lease(new, 64, 64).leases[0]
    assert work.commit(old, "b", range(40), "from-the-dead").accepted == 40
    assert work.ledger.begin(new, again.shard_id, "r2") == tuple(range(40, 64))
    assert work.commit(new, "b", range(30, 64)).accepted == 24
    assert work.ledger.batch("b").status == BatchStatus.FINALIZING
    check_invariants(work.ledger)


@pytest.mark.parametrize("positions", [[64], [0, 64], [0, 0], [2**32 - 1], [-1]])
def test_answers_outside_the_plan_or_doubled_change_nothing(work, positions):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    with pytest.raises(LedgerError) as caught:
        work.commit(session, "b", positions)
    assert caught.value.code == "bad_answers"
    assert work.ledger.progress("b").completed + work.ledger.progress("b").failed == 0
    check_invariants(work.ledger)


def test_the_same_name_with_other_content_is_refused(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    work.commit(session, "b", [1], "one")
    answers = Answers.of("b", [ResultLine(2, 2, b"{}")])
    with pytest.raises(LedgerError, match="other content"):
        work.ledger.commit(session, SegmentRef("one", 1, 1, "another"), answers)


def test_a_disowned_segments_rows_run_again(work):
    work.started("b", 128)
    session = work.ledger.open_session("m")
    work.commit(session, "b", range(64), "good")
    work.commit(session, "b", range(64, 128), "bad")
    assert work.ledger.batch("b").status == BatchStatus.FINALIZING
    assert work.ledger.disown("b", "bad") == 64
    assert work.ledger.disown("b", "bad") == 0
    batch = work.ledger.batch("b")
    assert (batch.status, batch.outcome) == (BatchStatus.IN_PROGRESS, None)
    assert work.ledger.progress("b").prompt_tokens == 640
    check_invariants(work.ledger)
    lease = work.ledger.lease(session, 64, 64).leases[0]
    assert work.ledger.begin(session, lease.shard_id, "r") == tuple(range(64, 128))
    assert work.commit(session, "b", range(64, 128), "better").batch_finished
    check_invariants(work.ledger)


def test_disowning_while_its_shard_runs_ends_the_lease_and_loses_nothing(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.ledger.begin(session, lease.shard_id, "r")
    work.commit(session, "b", range(10), "bad")
    work.ledger.disown("b", "bad")
    work.commit(session, "b", range(10, 64), "rest")
    check_invariants(work.ledger)
    lease = work.ledger.lease(session, 64, 64).leases[0]
    assert work.ledger.begin(session, lease.shard_id, "r") == tuple(range(10))


def test_a_suspects_reopened_neighbours_are_not_blamed_with_it(work):
    work.started("b", 8)
    session = work.ledger.open_session("m")
    (lease,) = work.ledger.lease(session, 64, 64).leases
    work.ledger.begin(session, lease.shard_id, "r")
    work.commit(session, "b", range(1, 8), "neighbours")
    work.ledger.crash(session, [lease.shard_id], "died")
    (lease,) = work.ledger.lease(session, 64, 64).leases
    work.ledger.begin(session, lease.shard_id, "r")
    work.ledger.crash(session, [lease.shard_id], "died")
    work.ledger.disown("b", "neighbours")
    check_invariants(work.ledger)
    first, *_ = work.ledger.lease(session, 64, 64).leases
    work.ledger.begin(session, first.shard_id, "r")
    work.ledger.crash(session, [first.shard_id], "died")
    assert [failure.position for failure in work.ledger.row_failures("b")] == [0]
    check_invariants(work.ledger)


def test_disowning_in_a_cancelled_batch_leaves_its_rows_unanswered(work):
    work.started("b", 64)
    work.commit(work.ledger.open_session("m"), "b", range(10), "bad")
    work.ledger.request_cancel("b")
    assert work.ledger.disown("b", "bad") == 10
    assert work.ledger.batch("b").status == BatchStatus.CANCELLING
    check_invariants(work.ledger)
    work.ledger.deliver("b", BatchStatus.CANCELLED)
    assert work.ledger.disown("b", "bad") == 0


def test_disowning_in_an_expired_batch_does_not_revive_it(work):
    work.started("b", 64, deadline=1100.0)
    work.commit(work.ledger.open_session("m"), "b", range(10), "bad")
    work.clock.now = 1100
    work.ledger.expire_due()
    assert work.ledger.disown("b", "bad") == 10
    assert work.ledger.batch("b").outcome == BatchStatus.EXPIRED
    check_invariants(work.ledger)


def test_what_validation_answered_cannot_be_disowned(work):
    work.ledger.create_batch(NewBatch("b", "m"))
    work.ledger.start_batch("b", 3, 1, 64, SegmentRef("bad", 1, 2, "s"))
    with pytest.raises(LedgerError, match="validate and write it again"):
        work.ledger.disown("b", "bad")
