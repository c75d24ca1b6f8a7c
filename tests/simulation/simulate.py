"""One simulated life of the service by its seed: a time of faults, then a time in which all that was accepted must end.

python tests/simulation/simulate.py 1234          replays a seed and prints its trace
"""

from __future__ import annotations

import gc
import shutil
import sys
import tempfile
import traceback
from collections import Counter
from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path
from typing import Any

from sim_callers import Callers
from sim_checker import BrokenError
from sim_faults import Faults
from sim_orders import Order
from sim_service import URLS_KEPT_S
from sim_stand_ins import simulated
from sim_world import World

from lsi_ray.ledger.invariants import check_invariants
from lsi_ray.ledger.service_ledger import ServiceLedger

MEMORY = Path("/dev/shm")
STEPS = 50
ROUNDS = 400
TRACE_SHOWN = 60


@dataclass(frozen=True, slots=True)
class Outcome:
    """`broken`: which invariant did not hold; "" for none."""

    seed: int
    digest: str
    acts: int
    disk_steps: int
    batches: int
    happened: Counter[str]
    broken: str = ""
    trace: tuple[str, ...] = ()

    def report(self) -> str:
        lines = "\n".join(self.trace[-TRACE_SHOWN:])
        return f"{lines}\n\nseed {self.seed}: {self.broken}\nreplay: python tests/simulation/simulate.py {self.seed}"


class Player:
    """What may happen next, and the dice that choose."""

    def __init__(self, world: World) -> None:
        self.world = world
        self.dice = world.dice
        self.callers = it = Callers(world)
        faults = Faults(world, it, (world.tick, world.job, self.stream, it.send_again))
        mood = self.dice.choice([0.3, 1.0, 1.0, 2.0])
        good = [
            (world.tick, 12), (world.job, 10), (self.stream, 42), (world.hooks, 3), (self.time, 6),
            (it.order, 3), (it.send_again, 2), (it.look_up, 1), (it.cancel, 1.5), (it.patch, 1), (it.retry, 1),
            (it.archive, 0.5),
        ]  # fmt: skip
        bad = [
            (faults.fuse, 4), (faults.kill_service, 1), (faults.stop_service, 0.5), (faults.kill_stream, 3),
            (faults.ghost, 1), (faults.undead, 6), (faults.lose_replica, 1), (faults.engine_dies, 1),
            (faults.lose_for_good, 0.5), (faults.kill_job, 1), (faults.jump, 0.5), (faults.damage, 0.6),
            (faults.network, 2), (faults.break_url, 0.4), (faults.disk_full, 0.3), (faults.stray_message, 2),
        ]  # fmt: skip
        self._acts = [act for act, _ in good + bad]
        self._weights = [weight for _, weight in good] + [weight * mood for _, weight in bad]

    def act(self) -> None:
        world = self.world
        world.acts += 1
        act = self.dice.choices(self._acts, self._weights)[0]
        world.guarded(act)
        if world.depth == 0:
            world.checker.look()

    def warm_up(self) -> None:
        """A first batch that runs, before anything goes wrong."""
        world = self.world
        for act in (self.callers.order, world.tick, world.job, world.tick, world.tick):
            world.guarded(act)

    def stream(self) -> None:
        """A few steps of all, or of one."""
        streams = list(self.world.streams.values())
        for _ in range(self.dice.randint(1, 4) if streams else 0):
            self.dice.choice(streams).step()

    def time(self) -> None:
        self.world.clock.pass_time(self.dice.choice([0.5, 2.0, 5.0, 31.0, 120.0]))

    # -- when the faults are over

    def heal(self) -> None:
        world = self.world
        world.faults = False
        world.disk.fuse, world.disk.full = None, False
        world.net.trouble, world.net.down = 0.0, False
        for stream in world.made:
            if stream.zombie:
                stream.stop("gone")
        world.say("healed")
        mended = [order for order in world.all_orders if self.dice.random() < 0.5]
        for order in mended:
            self._mend(order)
        wait = 1.0
        for _ in range(ROUNDS):
            if self.round():
                wait = 1.0
            if self.over():
                self.last_days()
                return
            world.clock.pass_time(wait)
            wait = min(wait * 2, 3600.0 if self._only_hopeless() else 300.0)
        world.checker.hold(False, "does not end:", self._state())

    def last_days(self) -> None:
        """The URLs that are kept for a retry go in their time."""
        clock = self.world.clock
        clock.pass_time(clock.latest - clock.now + URLS_KEPT_S + 61)
        self.world.tick()

    def _mend(self, order: Order) -> None:
        for batch_id in order.ids:
            if not self.world.service.batch(batch_id).status.terminal:
                self.callers.ask("patch", order.caller, batch_id, self.callers.new_urls(order))

    def round(self) -> bool:
        """Everybody does all they can; whether any batch got on."""
        world, before = self.world, self.world.checker.changes
        world.acts += 1
        for order in world.all_orders:
            if not order.ids and not order.refused:
                world.guarded(partial(self.callers.send, order))
        world.guarded(world.tick)
        while world.workers.waiting:
            world.guarded(world.job)
        for model in list(world.streams):
            world.guarded(partial(self._run, model))
        world.guarded(world.hooks)
        world.checker.look()
        return world.checker.changes != before

    def _run(self, model: str) -> None:
        steps = 0
        while steps < 60 and model in self.world.streams and self.world.streams[model].step():
            steps += 1

    def over(self) -> bool:
        world = self.world
        unfinished = world.service.unfinished()
        outbox = any((world.work.path / "webhooks").iterdir())
        return not unfinished and not outbox and not world.workers.jobs

    def _only_hopeless(self) -> bool:
        """What is left waits for a new input URL, until its window ends."""
        left = [self.world.order_of(batch.batch_id) for batch in self.world.service.unfinished()]
        return all(order is not None and f"input {order.number}" in self.world.broken for order in left)

    def _state(self) -> str:
        return ", ".join(f"{batch.batch_id} {batch.status}" for batch in self.world.service.unfinished())


def simulate(seed: int, *, bug: AbstractContextManager[Any] | None = None, steps: int = STEPS) -> Outcome:
    """`bug`: a planted one, for the length of this life."""
    return lived(seed, partial(_live, steps=steps), bug)


def lived(seed: int, life: Callable[[World, Player], None], bug: AbstractContextManager[Any] | None = None) -> Outcome:
    """A life in a world of its own, and what it broke."""
    gc.disable()  # whose collections would close files, and so write to them, at moments that no seed decides
    folder = Path(tempfile.mkdtemp(prefix="lsi-sim-", dir=MEMORY if MEMORY.is_dir() else None))
    world = World(seed, folder)
    player = Player(world)
    world.act = player.act
    try:
        empty_ledger()  # made outside: it is not part of this life
        with simulated(world), bug or nullcontext():
            broken = _broken_by(world, player, life)
    finally:
        gc.enable()
        shutil.rmtree(folder, ignore_errors=True)
    faults = world.happened + world.net.faults
    batches = len(world.checker.batches)
    return Outcome(seed, world.digest, world.acts, world.disk.steps, batches, faults, broken, tuple(world.trace))


def _broken_by(world: World, player: Player, life: Callable[[World, Player], None]) -> str:
    try:
        life(world, player)
    except BrokenError as error:
        return str(error)
    except Exception as error:  # nothing may come out of the product; an assertion of its own is found so, too
        world.trace.extend(traceback.format_exc().splitlines())
        return f"{type(error).__name__}: {error}"
    finally:
        world.close()
    return ""


@cache
def empty_ledger() -> bytes:
    """The file of a ledger without a batch. Making one takes 3 ms."""
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "ledger.sqlite"
        ServiceLedger(path).close()
        return path.read_bytes()


def _live(world: World, player: Player, *, steps: int) -> None:
    if world.dice.random() < 0.9:  # else it is made under way, and may die in it
        world.work.ledger.write_bytes(empty_ledger())
    world.disk.platter.all_synced()
    world.start()
    if world.dice.random() < 0.6:
        player.warm_up()
    world.faults, world.net.trouble = True, world.dice.choice([0.0, 0.0, 0.3, 0.6])
    for step in range(steps):
        player.act()
        if step % 15 == 0:
            check_invariants(world.service)
    player.heal()
    world.checker.at_end()


if __name__ == "__main__":
    outcome = simulate(int(sys.argv[1]))
    print("\n".join(outcome.trace if not outcome.broken else outcome.trace[:-TRACE_SHOWN]))
    print(outcome.report() if outcome.broken else f"seed {outcome.seed}: all invariants hold, trace {outcome.digest}")
    sys.exit(1 if outcome.broken else 0)
