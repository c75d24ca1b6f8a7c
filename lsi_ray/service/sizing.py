"""How many replicas each model should have now: a function of the work, its deadlines, and what was measured.

Decided anew from nothing every few seconds, in rounds over the GPUs there may be:

    1  what deadlines need, the most urgent claim of any model first: this may take GPUs from others
    2  the least that runs at all, for models with work whose deadlines do not press: running ones first
    3  claims that are late whatever happens: all that is left, because what is answered in time is delivered
    4  what runs already, while it is nearly needed: noise in a speed starts and stops no engines
    5  GPUs that are paid for whether used or not, as far as a replica's work outweighs its start
    6  engines that stay loaded without work

Invariants: no model has a number of replicas between 0 and its least, or above its most; the GPUs of all never exceed
those there may be; the answer depends on nothing but the arguments. A model that gets fewer than it has yields replicas
at the ends of their shards; one that gets none ends its stream in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lsi_ray.service.admission import Claim

_SAFETY = 1.25
"""A deadline's need is taken this much larger: tokens left and speeds are estimates."""
_KEEP = 1.3
"""A replica is given back when the others do this much more than the need."""
_PRESSES = 0.5
"""From this share of its least replicas on, a need takes GPUs from others: half the time it has would do."""
_WORTH = 5.0
"""A free GPU is used when the replica has this many times its start to work."""
_STICKS = 1.5
"""Free GPUs stay with who has them, unless another one's work takes this much longer."""
_GUESS = 1000.0  # tokens/s of a replica that was never measured, where GPUs are free


@dataclass(frozen=True, slots=True)
class Demand:
    """One model. `gpus`: of a replica, 0 on CPU; `rate`: tokens/s of a replica, None before it was measured; `start_s`:
    from a decision to a new replica's first token; `now`: replicas it has, loading ones too; `stays`: so many are kept
    without work."""

    model: str
    gpus: int
    least: int
    most: int
    rate: float | None
    start_s: float
    now: int
    claims: tuple[Claim, ...]
    stays: int = 0

    @property
    def tokens(self) -> float:
        return sum(claim.tokens for claim in self.claims)


@dataclass(frozen=True, slots=True)
class Gpus:
    """`paid`: there whether used or not; `most`: that there may ever be."""

    paid: int
    most: int


@dataclass(frozen=True, slots=True)
class _Need:
    """Replicas, not rounded, that do a claim and all before it in time. `late`: no number does; it is the most then."""

    one: Demand
    turn: tuple[float, int]
    replicas: float
    late: bool = False

    @property
    def order(self) -> tuple[tuple[float, int], bool]:
        """At equal turns who runs goes on."""
        return self.turn, not self.one.now


def size(demands: Sequence[Demand], gpus: Gpus, now: float) -> dict[str, int]:
    """Replicas wanted of each model."""
    given = _Given(demands, gpus.most)
    working = sorted((one for one in demands if one.claims), key=lambda one: min(claim.turn for claim in one.claims))
    needs = sorted((need for one in working for need in _needs(one, gpus.most, now)), key=lambda need: need.order)
    dated = [need for need in needs if not need.late]
    for need in dated:
        if need.replicas >= _PRESSES * need.one.least:
            given.raise_to(need.one, math.ceil(need.replicas))
    for one in sorted(working, key=lambda one: not one.now):
        given.raise_to(one, one.least)
    for need in needs:
        if need.late:
            given.raise_to(need.one, math.ceil(need.replicas))
    for need in dated:
        given.raise_to(need.one, min(math.ceil(_KEEP * need.replicas), need.one.now))
    _spread(working, given, gpus.paid)
    for one in demands:
        if one.stays and not one.claims:
            given.raise_to(one, one.stays)
    return given.replicas


def _needs(one: Demand, gpus: int, now: float) -> Iterator[_Need]:
    """Of each claim, in the order in which the ledger leases. An unmeasured model needs to run, to be measured."""
    possible = min(one.most, gpus // one.gpus) if one.gpus else one.most
    tokens = 0.0
    for claim in sorted(one.claims, key=lambda claim: (claim.turn, claim.deadline or math.inf)):
        left = math.inf if claim.deadline is None else claim.deadline - now
        if not one.rate:
            yield _Need(one, claim.turn, one.least)
        elif _replicas(one, tokens + claim.tokens, left) > possible:
            yield _Need(one, claim.turn, possible, late=True)
            tokens += min(claim.tokens, one.rate * possible * max(left, 0.0))
        else:
            tokens += claim.tokens
            yield _Need(one, claim.turn, min(_replicas(one, _SAFETY * tokens, left), possible))


def _replicas(one: Demand, tokens: float, left: float) -> float:
    """That do so many tokens in so many seconds, where those that are missing start first."""
    assert one.rate
    if left <= 0:
        return math.inf
    if (needed := tokens / (one.rate * left)) <= one.now:
        return needed
    if left <= one.start_s:
        return math.inf
    return one.now + (tokens - one.now * one.rate * left) / (one.rate * (left - one.start_s))


class _Given:
    def __init__(self, demands: Sequence[Demand], gpus: int) -> None:
        self.replicas = {one.model: 0 for one in demands}
        self.used = 0
        self._gpus = gpus

    def raise_to(self, one: Demand, count: int) -> None:
        """As far as there are GPUs; from none to its least or not at all."""
        have = self.replicas[one.model]
        count = min(max(count, one.least), one.most)
        if one.gpus:
            count = min(count, have + (self._gpus - self.used) // one.gpus)
        if count > have and count >= one.least:
            self.used += (count - have) * one.gpus
            self.replicas[one.model] = count


def _spread(working: Sequence[Demand], given: _Given, paid: int) -> None:
    """The paid GPUs that are left, one replica after another to the model whose work takes longest."""
    while able := [one for one in working if _may_take(one, given, paid)]:
        longest = max(able, key=lambda one: _seconds(one, given.replicas[one.model]) * _stickiness(one, given))
        given.raise_to(longest, given.replicas[longest.model] + 1)


def _may_take(one: Demand, given: _Given, paid: int) -> bool:
    have = given.replicas[one.model]
    step = one.gpus * (1 if have else one.least)
    if not step or have >= one.most or given.used + step > paid:
        return False
    return have < one.now or _seconds(one, have + 1) >= _WORTH * one.start_s


def _seconds(one: Demand, replicas: int) -> float:
    """Until so many have done its work."""
    return one.tokens / ((one.rate or _GUESS) * max(replicas, 0.5))


def _stickiness(one: Demand, given: _Given) -> float:
    return _STICKS if given.replicas[one.model] < one.now else 1.0
