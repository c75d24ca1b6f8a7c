from __future__ import annotations

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants


def batches_of(answer):
    return [lease.batch_id for lease in answer.leases]


def test_earliest_deadline_then_priority_then_age(work):
    work.started("old", 64)
    work.started("urgent", 64, priority=5)
    work.started("soon", 64, deadline=5000.0)
    work.started("sooner", 64, deadline=4000.0)
    work.started("young", 64)
    work.started("other", 64, model="n")
    session = work.ledger.open_session("m")
    answer = work.ledger.lease(session, 10_000, 10_000)
    assert batches_of(answer) == ["sooner", "soon", "urgent", "old", "young"]


def test_limits_count_open_rows_over_all_leases(work):
    work.started("b", 640)
    session = work.ledger.open_session("m")
    assert len(work.ledger.lease(session, 200, 300).leases) == 3
    assert len(work.ledger.lease(session, 200, 300).leases) == 1
    assert work.ledger.lease(session, 200, 300).state == "wait"
    work.commit(session, "b", range(64))
    assert len(work.ledger.lease(session, 200, 300).leases) == 1


def test_a_shard_larger_than_the_limits_goes_out_by_itself(work):
    work.started("b", 256)
    session = work.ledger.open_session("m")
    assert len(work.ledger.lease(session, 10, 10).leases) == 1
    assert work.ledger.lease(session, 10, 10).state == "wait"


def test_a_repeated_request_gets_the_same_leases(work):
    work.started("b", 256)
    session = work.ledger.open_session("m")
    first = work.ledger.lease(session, 128, 512, request=1)
    assert work.ledger.lease(session, 128, 512, request=1) == first
    second = work.ledger.lease(session, 128, 512, request=2)
    assert [lease.start for lease in second.leases] == [128, 192]


def test_a_model_without_rows_is_idle(work):
    assert work.ledger.lease(work.ledger.open_session("m"), 64, 64).state == "idle"


def test_a_new_session_ends_the_old_ones_leases_without_blame(work):
    work.started("b", 128)
    old = work.ledger.open_session("m")
    begun, waiting = work.ledger.lease(old, 128, 512).leases
    work.ledger.begin(old, begun.shard_id, "r1")
    work.commit(old, "b", range(10))
    new = work.ledger.open_session("m")
    assert new > old
    assert work.ledger.begin(old, waiting.shard_id, "r1") is None
    with pytest.raises(LedgerError, match="has ended") as caught:
        work.ledger.lease(old, 64, 64)
    assert caught.value.code == "stale_session"
    work.ledger.crash(old, [begun.shard_id, waiting.shard_id], "late blame")
    again = work.ledger.lease(new, 128, 512).leases
    assert [(lease.start, lease.attempt) for lease in again] == [(0, 1), (64, 1)]
    assert again[0].todo() == tuple(range(10, 64))
    assert work.ledger.begin(new, again[0].shard_id, "r2") == tuple(range(10, 64))
    assert work.ledger.progress("b").rows_rerun == 54
    check_invariants(work.ledger)


def test_sessions_of_other_models_go_on(work):
    work.started("b", 64)
    mine = work.ledger.open_session("m")
    lease = work.ledger.lease(mine, 64, 64).leases[0]
    work.ledger.open_session("n")
    assert work.ledger.begin(mine, lease.shard_id, "r") is not None


def test_a_shard_that_loses_its_session_a_third_time_is_blamed(work):
    work.started("b", 64)
    for attempt in (1, 1, 1, 2):
        session = work.ledger.open_session("m")
        lease = work.ledger.lease(session, 64, 64).leases[0]
        assert lease.attempt == attempt
        work.ledger.begin(session, lease.shard_id, f"r{session}")


def test_begin_may_be_asked_again_by_the_same_run(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    first = work.ledger.begin(session, lease.shard_id, "r1")
    assert work.ledger.begin(session, lease.shard_id, "r1") == first
    assert work.ledger.progress("b").rows_begun == 64


def test_begin_by_another_run_is_a_crash_of_the_first(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.ledger.begin(session, lease.shard_id, "r1")
    assert work.ledger.begin(session, lease.shard_id, "r2") is None
    assert work.ledger.begin(session, lease.shard_id, "r3") is None
    assert [lease.attempt for lease in work.ledger.lease(session, 64, 64).leases] == [2] * 8
    check_invariants(work.ledger)


def test_a_released_shard_keeps_its_attempt(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    for _ in range(5):
        lease = work.ledger.lease(session, 64, 64).leases[0]
        assert lease.attempt == 1
        assert work.ledger.begin(session, lease.shard_id, "r") is not None
        work.ledger.release(session, [lease.shard_id])
    assert work.ledger.progress("b").rows_rerun == 4 * 64


def test_a_shard_that_is_done_is_not_begun(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.commit(session, "b", range(64))
    assert work.ledger.begin(session, lease.shard_id, "r") is None
