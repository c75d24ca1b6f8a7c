"""Does sizing by deadlines pay? Days of arrivals over 1 to 512 GPUs, under a clock of its own, without Ray.

    python benchmarks/policy.py                  # all sizes, 2 days, 2 seeds; a table, and results/policy.json
    python benchmarks/policy.py --gpus 8 --days 7 --seeds 1

The policy is the service's (`lsi_ray.service.sizing`); the world knows what it does not: true speeds, true tokens.
Against it: `static`, every model owns its share of the GPUs day and night; `fcfs`, batches of all models one after
another, each with all the GPUs it can use. `deadline` brings GPUs up and lets them go; `paid` has them all anyway.
"""

from __future__ import annotations

import argparse
import json
import math
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from measure.host import describe

from lsi_ray.ledger.turns import urgency
from lsi_ray.service.admission import Claim
from lsi_ray.service.sizing import Demand, Gpus, size

STEP_S = 30.0
SHARD_S = 60.0  # a replica that yields is busy with its last shards for so long
ENGINE_S, NODE_S = 90.0, 240.0
IDLE_S = 300.0  # a GPU without a replica goes after so long, where GPUs go
DAY = 86_400.0
WINDOWS = ((900.0, 0.15), (3600.0, 0.25), (6 * 3600.0, 0.2), (DAY, 0.4))
LINE = (
    "| {load} | {gpus} | {way} | {batches:.0f} | {missed:.0f} | {tokens_unanswered_share:.1%} "
    "| {gpu_hours:.0f} | {utilisation:.0%} | {replica_starts:.0f} |"
)
RESULT = Path(__file__).parent / "results" / "policy.json"


@dataclass(frozen=True)
class Model:
    """`rate`: tokens/s of a replica; `share`: of the work, in GPU-seconds."""

    name: str
    gpus: int
    rate: float
    share: float


MODELS = (Model("vlm-7b", 1, 6000.0, 0.5), Model("llm-8b", 1, 20_000.0, 0.3), Model("vlm-72b", 4, 4000.0, 0.2))
SMALL = MODELS[:2]


@dataclass
class Batch:
    number: int
    model: Model
    arrives: float
    deadline: float
    tokens: float
    told: float
    """What the estimate is of `tokens`, as a factor; it fades as rows are done."""
    left: float = 0.0
    ended: float | None = None


@dataclass
class Pool:
    """Replicas of one model. `ready` ones work, `loading` ones will at their times, `yielding` ones go at theirs."""

    model: Model
    ready: int = 0
    loading: list[float] = field(default_factory=list)
    yielding: list[float] = field(default_factory=list)
    starts: int = 0
    worked_at: float = -math.inf

    @property
    def now(self) -> int:
        return self.ready + len(self.loading)

    @property
    def held(self) -> int:
        return (self.now + len(self.yielding)) * self.model.gpus

    def step(self, now: float) -> None:
        self.ready += sum(at <= now for at in self.loading)
        self.loading = [at for at in self.loading if at > now]
        self.yielding = [at for at in self.yielding if at > now]

    def shrink(self, count: int, now: float) -> None:
        while self.now > count and self.loading:
            self.loading.remove(max(self.loading))
        gone = max(0, self.now - count)
        self.ready -= gone
        self.yielding += [now + SHARD_S] * gone


Policy = Callable[["World"], dict[str, int]]


class World:
    """`elastic`: GPUs come with a node's start and go when idle; else all of them are there, and paid."""

    def __init__(self, gpus: int, arrivals: list[Batch], policy: Policy, seed: int, *, elastic: bool) -> None:
        self.gpus, self.elastic = gpus, elastic
        self.models = MODELS if gpus >= 8 else SMALL
        self.pools = {model.name: Pool(model) for model in self.models}
        self.open: list[Batch] = []
        self.now = 0.0
        self._policy = policy
        self._arrivals = iter(arrivals)
        self._next = next(self._arrivals, None)
        self._random = random.Random(seed)
        self._idle: list[float] = []  # since when each GPU that is up has had no replica
        self.batches = arrivals
        self.paid_s = self.busy_s = 0.0

    def run(self, until: float) -> None:
        while self.now < until or self.open:
            self.step()

    def step(self) -> None:
        while self._next is not None and self._next.arrives <= self.now:
            self.open.append(self._next)
            self._next = next(self._arrivals, None)
        self._resize(self._policy(self))
        for pool in self.pools.values():
            self._work(pool)
        held = sum(pool.held for pool in self.pools.values())
        self.paid_s += STEP_S * (held + len(self._idle) if self.elastic else self.gpus)
        self.now += STEP_S

    def _resize(self, wanted: dict[str, int]) -> None:
        before = sum(pool.held for pool in self.pools.values())
        for pool in self.pools.values():
            pool.step(self.now)
            pool.shrink(wanted.get(pool.model.name, 0), self.now)
        freed = before - sum(pool.held for pool in self.pools.values())
        self._idle = [since for since in self._idle if self.now - since < IDLE_S] + [self.now] * max(0, freed)
        for pool in self.pools.values():
            while pool.now < wanted.get(pool.model.name, 0) and self._start(pool):
                pool.starts += 1

    def _start(self, pool: Pool) -> bool:
        if sum(other.held for other in self.pools.values()) + pool.model.gpus > self.gpus:
            return False
        there = not self.elastic or len(self._idle) >= pool.model.gpus
        del self._idle[: pool.model.gpus]
        wait = ENGINE_S + (0.0 if there else NODE_S)
        pool.loading.append(self.now + wait * self._random.uniform(0.8, 1.5))
        return True

    def _work(self, pool: Pool) -> None:
        """The most urgent batch first, as leases go; speeds waver by a tenth."""
        if any(one.model is pool.model for one in self.open):
            pool.worked_at = self.now
        tokens = able = pool.ready * pool.model.rate * STEP_S * self._random.uniform(0.9, 1.1)
        for batch in sorted((one for one in self.open if one.model is pool.model), key=self.order):
            done = min(batch.left, tokens)
            batch.left, tokens = batch.left - done, tokens - done
            if batch.left <= 0:
                batch.ended = self.now + STEP_S
            elif self.now >= batch.deadline:
                batch.ended = math.inf  # expired: what was done is delivered
        self.open = [one for one in self.open if one.ended is None]
        if able:
            self.busy_s += STEP_S * pool.ready * pool.model.gpus * (1 - tokens / able)

    def order(self, batch: Batch) -> tuple[float, float]:
        return urgency(batch.deadline, self.now), batch.deadline


def deadline_policy(world: World) -> dict[str, int]:
    demands = [demand(world, pool) for pool in world.pools.values()]
    return size(demands, Gpus(0 if world.elastic else world.gpus, world.gpus), world.now)


def demand(world: World, pool: Pool) -> Demand:
    claims = tuple(claim(batch, world.now) for batch in world.open if batch.model is pool.model)
    start = ENGINE_S + (NODE_S if world.elastic else 0.0)
    most = world.gpus // pool.model.gpus
    stays = pool.now if world.now - pool.worked_at < IDLE_S else 0
    return Demand(pool.model.name, pool.model.gpus, 1, most, pool.model.rate, start, pool.now, claims, stays)


def claim(batch: Batch, now: float) -> Claim:
    guess = batch.told ** (batch.left / batch.tokens)
    return Claim.of(str(batch.number), batch.left * guess, batch.deadline, 0, now)


def static_policy(world: World) -> dict[str, int]:
    """Each model one replica, the rest by share of GPU-seconds, as somebody sets it who knows the mean load. A model
    that has no GPU by that is never served: one GPU cannot be shared."""
    wanted, left = {}, world.gpus
    for model in world.models:
        wanted[model.name] = min(1, left // model.gpus)
        left -= wanted[model.name] * model.gpus
    while able := [model for model in world.models if model.gpus <= left]:
        least = min(able, key=lambda model: (wanted[model.name] + 1) * model.gpus / model.share)
        wanted[least.name] += 1
        left -= least.gpus
    return wanted


def fcfs_policy(world: World) -> dict[str, int]:
    """Whose batch came first has what it can use: what would do it in five times a start. Then the next."""
    wanted, left = {model.name: 0 for model in world.models}, world.gpus
    for batch in sorted(world.open, key=lambda batch: batch.arrives):
        able = max(1, math.ceil(batch.left / (batch.model.rate * 5 * ENGINE_S)))
        given = min(able, left // batch.model.gpus)
        wanted[batch.model.name] += given
        left -= given * batch.model.gpus
    return wanted


class Fcfs(World):
    def order(self, batch: Batch) -> tuple[float, float]:
        return batch.arrives, batch.deadline


def arrivals(gpus: int, days: float, load: float, seed: int) -> list[Batch]:
    """Poisson with a busy half of the day; sizes lognormal, less what admission would refuse. `load`: the GPU-seconds
    of all of them, of those there are."""
    chance = random.Random(seed)
    models = MODELS if gpus >= 8 else SMALL
    per_day = 90.0 + 18.0 * gpus**0.5
    found, at = [], 0.0
    while (at := at + chance.expovariate(per_day / DAY)) < days * DAY:
        if at % DAY > DAY / 2 and chance.random() > 0.35:
            continue
        model = chance.choices(models, [one.share for one in models])[0]
        window = chance.choices([one for one, _ in WINDOWS], [weight for _, weight in WINDOWS])[0]
        tokens = chance.lognormvariate(0, 1.0) * model.rate / model.gpus
        found.append(Batch(len(found), model, at, at + window, tokens, chance.lognormvariate(0, 0.25)))
    for _ in range(20):
        scale = load * gpus * days * DAY / sum(one.tokens * one.model.gpus / one.model.rate for one in found)
        for one in found:
            one.left = one.tokens = min(one.tokens * scale, _acceptable(one, gpus))
    return found


def _acceptable(one: Batch, gpus: int) -> float:
    """Tokens that a third of the GPUs do in half its window."""
    return 0.5 * (one.deadline - one.arrives) * one.model.rate * max(1, gpus // one.model.gpus // 3)


@dataclass(frozen=True)
class Way:
    name: str
    policy: Policy
    elastic: bool
    world: type[World] = World


WAYS = (
    Way("deadline", deadline_policy, elastic=True),
    Way("paid", deadline_policy, elastic=False),
    Way("static", static_policy, elastic=False),
    Way("fcfs", fcfs_policy, elastic=False, world=Fcfs),
    Way("fcfs-elastic", fcfs_policy, elastic=True, world=Fcfs),
)


def play(way: Way, gpus: int, days: float, load: float, seed: int) -> dict[str, float]:
    world = way.world(gpus, arrivals(gpus, days, load, seed), way.policy, seed, elastic=way.elastic)
    begun = time.process_time()
    world.run(days * DAY)
    missed = [one for one in world.batches if one.ended is None or one.ended > one.deadline + STEP_S]
    unanswered = sum(one.left for one in missed)
    return {
        "batches": len(world.batches),
        "missed": len(missed),
        "tokens_unanswered_share": unanswered / sum(one.tokens for one in world.batches),
        "gpu_hours": world.paid_s / 3600,
        "utilisation": world.busy_s / world.paid_s,
        "replica_starts": sum(pool.starts for pool in world.pools.values()),
        "cpu_s": time.process_time() - begun,
    }


def cases(arguments: argparse.Namespace) -> Iterator[dict[str, object]]:
    for load in arguments.load:
        for gpus in arguments.gpus:
            for way in WAYS:
                runs = [play(way, gpus, arguments.days, load, seed) for seed in range(arguments.seeds)]
                total = {key: sum(run[key] for run in runs) for key in runs[0]}
                for key in ("utilisation", "tokens_unanswered_share"):
                    total[key] /= len(runs)
                yield {"way": way.name, "gpus": gpus, "load": load, **total}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpus", type=int, nargs="+", default=[1, 2, 8, 32, 128, 512])
    parser.add_argument("--load", type=float, nargs="+", default=[0.3, 0.6])
    parser.add_argument("--days", type=float, default=2.0)
    parser.add_argument("--seeds", type=int, default=2)
    parser.add_argument("--output", type=Path, default=RESULT)
    arguments = parser.parse_args()
    print("| load | GPUs | policy | batches | late | unanswered | GPU-hours | used | starts |")
    print("|---" * 9 + "|")
    found = []
    for case in cases(arguments):
        found.append(case)
        print(LINE.format(**case), flush=True)
    options = {"days": arguments.days, "seeds": arguments.seeds, "step_s": STEP_S}
    arguments.output.write_text(json.dumps({"host": describe(), "options": options, "cases": found}, indent=1))


if __name__ == "__main__":
    main()
