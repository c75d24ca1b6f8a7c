from __future__ import annotations

import random

import pytest

from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.states import BatchStatus


def run(work, batch_id, poison, max_rounds=10_000):
    """One engine that takes 128 rows at once, or one exclusive shard; it dies of a poison row. The crashes."""
    session, crashes = work.ledger.open_session("m"), []
    for _ in range(max_rounds):
        answer = work.ledger.lease(session, 128, 128)
        if answer.state == "idle":
            return crashes
        fresh = [lease for lease in answer.leases if not lease.exclusive]
        suspects = [lease for lease in answer.leases if lease.exclusive]
        for together in [fresh, *([lease] for lease in suspects)]:
            rows = {}
            for lease in together:
                rows[lease.shard_id] = work.ledger.begin(session, lease.shard_id, "r")
            bad = {row for part in rows.values() for row in part} & poison
            if bad:
                crashes.append(bad)
                work.ledger.crash(session, list(rows), "exit code 139")
                work.ledger.crash(session, list(rows), "exit code 139")
            else:
                for part in rows.values():
                    work.commit(session, batch_id, part, f"s{part[0]}")
            check_invariants(work.ledger)
    raise AssertionError("the batch does not end")


@pytest.mark.parametrize("poison", [0, 7, 8, 37, 63])
def test_one_poison_row_costs_three_crashes_and_no_neighbour(work, poison):
    work.started("b", 64)
    assert run(work, "b", {poison}) == [{poison}] * 3
    progress = work.ledger.progress("b")
    (failure,) = work.ledger.row_failures("b")
    assert (failure.position, failure.code) == (poison, "engine_crashed")
    assert failure.message.endswith("exit code 139")
    assert sum(ref.rows for ref in work.ledger.segments("b")) == 63
    assert (progress.total, progress.completed + progress.failed, progress.quarantined) == (64, 64, 1)
    assert work.ledger.batch("b").status == BatchStatus.FINALIZING


def test_neighbours_already_answered_are_not_run_again(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.ledger.begin(session, lease.shard_id, "r")
    work.commit(session, "b", [row for row in range(64) if row % 2])
    work.ledger.crash(session, [lease.shard_id], "died")
    suspects = work.ledger.lease(session, 64, 64).leases
    assert [len(lease.todo()) for lease in suspects] == [8, 8, 8, 8]
    assert [row for lease in suspects for row in lease.todo()] == list(range(0, 64, 2))
    check_invariants(work.ledger)


def test_suspects_come_after_the_fresh_shards_of_their_batch(work):
    work.started("b", 192)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.ledger.begin(session, lease.shard_id, "r")
    work.ledger.crash(session, [lease.shard_id], "died")
    attempts = [lease.attempt for lease in work.ledger.lease(session, 1000, 1000).leases]
    assert attempts == [1, 1] + [2] * 8


def test_a_shard_that_had_not_begun_is_not_blamed(work):
    work.started("b", 64)
    session = work.ledger.open_session("m")
    lease = work.ledger.lease(session, 64, 64).leases[0]
    work.ledger.crash(session, [lease.shard_id], "died")
    assert work.ledger.lease(session, 64, 64).leases[0].attempt == 1


def test_a_hung_engine_has_its_own_code(work):
    work.started("b", 1)
    session = work.ledger.open_session("m")
    for _ in range(3):
        lease = work.ledger.lease(session, 64, 64).leases[0]
        work.ledger.begin(session, lease.shard_id, "r")
        work.ledger.crash(session, [lease.shard_id], "no token for 600 s", code="engine_timeout")
    assert work.ledger.row_failures("b")[0].code == "engine_timeout"


def test_an_answer_that_comes_after_the_verdict_is_refused(work):
    work.started("b", 10)
    session = work.ledger.open_session("m")
    for _ in range(3):
        for lease in work.ledger.lease(session, 64, 64).leases:
            work.ledger.begin(session, lease.shard_id, "r")
            if 3 in lease.todo():
                work.ledger.crash(session, [lease.shard_id], "died")
    assert [failure.position for failure in work.ledger.row_failures("b")] == [3]
    assert work.commit(session, "b", range(10)).accepted == 9
    assert work.ledger.segments("b")[0].refused == (3,)
    check_invariants(work.ledger)


@pytest.mark.parametrize("seed", range(6))
def test_many_poison_rows_end_in_bounded_crashes(work, seed):
    print("seed", seed)
    dice = random.Random(seed)
    rows = 200
    poison = set(range(rows)) if seed == 0 else {row for row in range(rows) if dice.random() < 0.1}
    work.started("b", rows)
    crashes = run(work, "b", poison)
    assert {failure.position for failure in work.ledger.row_failures("b")} == poison
    assert all(sum(row in bad for bad in crashes) == 3 for row in poison)
    assert work.ledger.batch("b").outcome == BatchStatus.COMPLETED


def test_what_a_lost_replica_held_goes_to_the_others(work):
    """Its shard is blamed; what waits, perhaps for it, is leased anew, and late messages about either do nothing."""
    work.started("b", 256)
    session = work.ledger.open_session("m")
    lost, mine, waiting, _ = work.ledger.lease(session, 256, 512).leases
    work.ledger.begin(session, lost.shard_id, "gone")
    work.ledger.begin(session, mine.shard_id, "here")
    assert work.ledger.holders() == {session: {"gone", "here"}}
    assert work.ledger.lose(session, ["idle", "gone"]) == 3
    check_invariants(work.ledger)
    again = work.ledger.lease(session, 256, 512).leases
    assert [(lease.start, lease.attempt) for lease in again] == [
        (128, 1),
        (192, 1),
        *((start, 2) for start in range(0, 64, 8)),
    ]
    for late in (lost, waiting):
        assert work.ledger.begin(session, late.shard_id, "back") is None
    assert work.ledger.begin(session, mine.shard_id, "here") == tuple(range(64, 128))
    assert work.commit(session, "b", range(256)).batch_finished
    check_invariants(work.ledger)
