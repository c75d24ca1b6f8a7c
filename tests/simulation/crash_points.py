"""One batch's whole life, ended at each step that it takes on the disk: submitted, taken in, answered in three commits,
delivered, told, erased.

At every write, sync, rename, link, removal, and at every write, sync, truncation and deletion of SQLite's, the process
that does it is killed before (or in the middle of) the step or after it, or the power goes. What comes up again must be
the state before or after, and the batch must still end as it would have.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from functools import partial
from itertools import chain, cycle

from sim_disk import Fuse
from sim_orders import CALLERS, MODELS, Order
from sim_service import deployment
from sim_world import World
from simulate import Outcome, Player, empty_ledger, lived

from lsi_ray.ledger.invariants import check_invariants

ROUNDS = 60
SHARD_ROWS = 2
WAYS = tuple((power, after) for power in (False, True) for after in (False, True))


def order(*, in_url: bool) -> Order:
    return Order(
        number=0,
        caller=CALLERS[0],
        model=MODELS[0],
        kinds=("ok", "bad", "ok", "error", "ok", "ok"),
        key="key",
        window_s=3600.0,
        in_url=in_url,
        out_url=in_url,
        webhook=True,
    )


def point(step: int, *, power: bool, after: bool, in_url: bool = True) -> Outcome:
    """The life that ends once, at this step."""
    return lived(0, partial(_live, fuses=iter([Fuse(None, step, power, after)]), in_url=in_url))


def points_every(steps: int, first: int, *, in_url: bool) -> Outcome:
    """The life that ends at step `first` and after every so many steps again, in all ways by turns."""
    ways = cycle(WAYS[first % len(WAYS) :] + WAYS[: first % len(WAYS)])
    fuses = chain([Fuse(None, first, *next(ways))], (Fuse(None, steps, *way) for way in ways))
    return lived(first, partial(_live, fuses=fuses, in_url=in_url, made=True))


def points() -> Iterator[tuple[int, bool]]:
    """Every step of a life with URLs, and of one with files."""
    for in_url in (True, False):
        steps = lived(0, partial(_live, fuses=iter(()), in_url=in_url)).happened["steps"]
        yield from ((step, in_url) for step in range(1, steps + 1))


def kinds() -> Counter[str]:
    """The steps of both lives by kind."""
    counts = Counter[str]()

    def live(world: World, player: Player, *, in_url: bool) -> None:
        _live(world, player, fuses=iter(()), in_url=in_url)
        counts.update(world.disk.counts)

    for in_url in (True, False):
        lived(0, partial(live, in_url=in_url))
    return counts


def left_open() -> list[str]:
    """What both lives, undisturbed, leave open of the batch that is gone."""
    names: list[str] = []

    def live(world: World, player: Player, *, in_url: bool) -> None:
        _live(world, player, fuses=iter(()), in_url=in_url)
        for stream in world.made:
            stream.close()
        names.extend(name for name in world.disk.fds.values() if name.startswith("/batches/"))

    for in_url in (True, False):
        lived(0, partial(live, in_url=in_url))
    return names


def _live(world: World, player: Player, *, fuses: Iterator[Fuse], in_url: bool, made: bool = False) -> None:
    """`made`: the ledger's file is there; making it takes more than 60 steps."""

    def next_fuse() -> Fuse | None:
        world.happened["exits"] += 1
        return next(fuses, None)

    world.deployment = deployment(SHARD_ROWS)
    if made:
        world.work.ledger.write_bytes(empty_ledger())
    world.disk.platter.all_synced()
    world.disk.fuse, world.disk.next_fuse = next(fuses, None), next_fuse
    world.guarded(world.start)
    one = order(in_url=in_url)
    world.orders.append(one)
    player.callers.know(one)
    for _ in range(ROUNDS):
        player.round()
        check_invariants(world.service)
        if one.ids and player.over():
            break
        world.clock.pass_time(5.0)
    else:
        world.checker.hold(False, "does not end")
    world.happened["steps"] = world.disk.steps
    world.disk.fuse = None
    player.last_days()
    world.checker.at_end()
