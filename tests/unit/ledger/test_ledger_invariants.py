"""The shared checker of the ledger's tables, and the sets it counts with. Orders of events: tests/simulation."""

from __future__ import annotations

import random

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.positions import members, pack, slice_bits, unpack, with_bits

PLANTED = [
    "UPDATE counts SET completed = completed + 1",
    "UPDATE counts SET prompt_tokens = 0",
    "UPDATE shards SET todo = todo + 1",
    "UPDATE shards SET done = x'ff00'",
    "UPDATE shards SET state = 3 WHERE state = 0",
    "UPDATE shards SET session = 99",
    "UPDATE shards SET attempt = 3",
    "DELETE FROM shards WHERE start = 16",
    "DELETE FROM segments",
    "UPDATE segments SET completed = completed + 1",
    "INSERT INTO quarantined VALUES (1, 0, 'engine_crashed', '')",
    "UPDATE batches SET status = 'completed'",
    "UPDATE history SET status = 'expired' WHERE step = 1",
    "UPDATE counts SET rows_rerun = 1000",
]


@pytest.mark.parametrize("damage", PLANTED)
def test_the_checker_finds_planted_damage(work, damage):
    work.started("b", 40, shard_rows=16)
    session = work.ledger.open_session("m")
    work.commit(session, "b", range(10))
    work.ledger.lease(session, 1, 100)
    check_invariants(work.ledger)
    with work.ledger.reading() as db:
        db.execute("PRAGMA foreign_keys=OFF")
        db.execute(damage)
    with pytest.raises(LedgerError) as caught:
        check_invariants(work.ledger)
    assert caught.value.code == "invariant_broken"


@pytest.mark.parametrize("seed", range(20))
def test_bitmaps_and_packed_lists_agree_with_sets(seed):
    print("seed", seed)
    dice = random.Random(seed)
    start = dice.randrange(0, 5_000_000)
    stop = start + dice.randrange(1, 200)
    chosen = sorted(dice.sample(range(start, stop), dice.randint(0, stop - start)))
    done = with_bits(start, bytes((stop - start + 7) // 8), chosen, True)
    assert sorted({*range(start, stop)} - {*members(start, stop, done)}) == chosen
    assert unpack(pack(chosen)) == tuple(chosen)
    first = dice.randrange(start, stop)
    part = slice_bits(start, done, first, stop)
    assert sorted({*range(first, stop)} - {*members(first, stop, part)}) == [p for p in chosen if p >= first]
    assert not any(with_bits(start, done, chosen, False))
