"""Random operations by seed against the shared checker, and a plain model of what must come out."""

from __future__ import annotations

import random

import pytest

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.positions import members, pack, slice_bits, unpack, with_bits
from lsi_ray.ledger.records import Lease, NewBatch, SegmentRef
from lsi_ray.ledger.states import BatchStatus

SEEDS = 200
STEPS = 50


class Player:
    """Streams, engines and users of two models, all of them unreliable. Keeps every message it might repeat."""

    def __init__(self, work, dice):
        self.work, self.dice = work, dice
        self.sessions = {model: work.ledger.open_session(model) for model in "mn"}
        self.leases: list[Lease] = []
        self.running: list[tuple[Lease, tuple[int, ...]]] = []
        self.commits: list[tuple[int, str, list[int], str]] = []
        self.plans: dict[str, int] = {}

    def create(self):
        if len(self.plans) == 5:
            return
        name, plan = f"b{len(self.plans)}", self.dice.randrange(0, 150)
        bad = self.dice.choice([0, 0, 3]) if plan else 1
        deadline = self.dice.choice([None, self.work.clock.now + self.dice.randrange(1, 200)])
        model = self.dice.choice("mn")
        ref = SegmentRef("bad", 1, bad, "s") if bad else None
        for _ in range(self.dice.choice([1, 2])):
            self.work.ledger.create_batch(NewBatch(name, model, deadline=deadline))
            self.work.ledger.start_batch(name, plan + bad, plan, 16, ref)
        self.plans[name] = plan

    def new_session(self):
        model = self.dice.choice("mn")
        self.sessions[model] = self.work.ledger.open_session(model)

    def lease(self):
        session = self.dice.choice(list(self.sessions.values()))
        self.leases += self.work.ledger.lease(session, self.dice.choice([1, 20, 64]), 200).leases

    def begin(self):
        if self.leases:
            lease = self.dice.choice(self.leases[-6:] if self.dice.random() < 0.8 else self.leases)
            rows = self.work.ledger.begin(lease.session, lease.shard_id, self.dice.choice(["r1", "r2"]))
            if rows:
                self.running.append((lease, rows))

    def commit(self):
        if self.running:
            lease, rows = self.dice.choice(self.running)
            part = self.dice.sample(rows, self.dice.randint(1, len(rows)))
            name = f"s{len(self.commits)}"
            self.commits.append((lease.session, lease.batch_id, part, name))
            self._commit(self.commits[-1])

    def _commit(self, message):
        session, batch_id, part, name = message
        before = self.work.ledger.progress(batch_id)
        result = self.work.commit(session, batch_id, part, name)
        after = self.work.ledger.progress(batch_id)
        if before.status != BatchStatus.IN_PROGRESS:
            assert before == after
        assert after.completed >= before.completed
        assert after.failed >= before.failed
        assert result.accepted <= len(part)

    def commit_again(self):
        if self.commits:
            self._commit(self.dice.choice(self.commits))

    def crash(self):
        """Of the latest runs, now and then blamed in the name of another session."""
        for lease, _ in self.running[-self.dice.randint(1, 6) :]:
            other = self.dice.choice(list(self.sessions.values()))
            session = lease.session if self.dice.random() < 0.9 else other
            self.work.ledger.crash(session, [lease.shard_id], "died")

    def release(self):
        ids = [lease.shard_id for lease in self.leases[-2:]]
        self.work.ledger.release(self.dice.choice(list(self.sessions.values())), ids)

    def disown(self):
        if self.commits and self.dice.random() < 0.3:
            _, batch_id, _, name = self.dice.choice(self.commits)
            if not self.work.ledger.batch(batch_id).status.terminal:
                self.work.ledger.disown(batch_id, name)

    def cancel(self):
        if self.plans and self.dice.random() < 0.1:
            self.work.ledger.request_cancel(self.dice.choice(list(self.plans)))

    def time(self):
        self.work.clock.now += self.dice.choice([-50, 1, 10, 30])
        self.work.ledger.expire_due()

    def deliver(self):
        for name in self.plans:
            batch = self.work.ledger.batch(name)
            if batch.outcome is not None and self.dice.random() < 0.5:
                self.work.ledger.deliver(name, batch.outcome)

    def restart(self):
        if self.dice.random() < 0.2:
            self.work.reopen()

    def finish(self):
        """Perfect streams with poison rows at last: every batch must come to its end."""
        for model in "mn":
            self.sessions[model] = session = self.work.ledger.open_session(model)
            while (answer := self.work.ledger.lease(session, 64, 64)).leases:
                for lease in answer.leases:
                    rows = self.work.ledger.begin(session, lease.shard_id, "r")
                    if any(row % 16 == 5 for row in rows):
                        self.work.ledger.crash(session, [lease.shard_id], "poison")
                    else:
                        self.work.commit(session, lease.batch_id, rows, f"end{lease.shard_id}")
            assert answer.state == "idle"

    def conserved(self, name):
        batch, progress = self.work.ledger.batch(name), self.work.ledger.progress(name)
        assert batch.outcome or batch.status.terminal
        if BatchStatus.COMPLETED in (batch.outcome, batch.status):
            assert progress.completed + progress.failed == progress.total
        taken = sum(ref.rows - len(ref.refused) for ref in self.work.ledger.segments(name))
        assert taken + len(self.work.ledger.row_failures(name)) == progress.completed + progress.failed


WEIGHTS = {"begin": 3, "commit": 3, "lease": 2}
ONCE = ["create", "commit_again", "crash", "release", "disown", "cancel", "time", "deliver", "restart", "new_session"]
STEP_NAMES = [*ONCE, *(name for name, weight in WEIGHTS.items() for _ in range(weight))]


@pytest.mark.parametrize("block", range(10))
def test_no_order_of_events_breaks_an_invariant(work, block):
    for seed in range(block * SEEDS // 10, (block + 1) * SEEDS // 10):
        print("seed", seed)
        dice = random.Random(seed)
        work.ledger.close()
        for path in work.folder.iterdir():
            path.unlink()
        work.clock.now = 1000.0
        work.ledger = work.open()
        player = Player(work, dice)
        for _ in range(STEPS):
            getattr(player, dice.choice(STEP_NAMES))()
            check_invariants(work.ledger)
        player.finish()
        check_invariants(work.ledger)
        for name in player.plans:
            player.conserved(name)


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
