"""How long work takes: what may be accepted, when a batch ends, and whether its window is at risk.

Work is counted in tokens, prompt and completion together, because that is what an engine's speed is steady in. A batch
that runs is estimated by its own rows; one that has been validated by its text, its `max_tokens`, and what the model's
rows have been like; one that has not been looked into counts nothing yet, and is weighed when it has
(`Capacity.weigh`). Nothing is refused before the engines were seen full (`Meter.capacity`).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from lsi_ray.ledger.service_records import BatchSize, Load
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.turns import urgency
from lsi_ray.service.backend import Eta, ServiceError
from lsi_ray.service.speed import Meter

_BYTES_PER_TOKEN = 4.0
_COMPLETION_PER_ROW = 256.0  # before anything was measured
_TELLING_ROWS = 20
_WINDOWS = (("15m", 900), ("1h", 3600), ("6h", 21_600), ("24h", 86_400), ("48h", 172_800), ("7d", 604_800))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a batch has still to do, and when it comes up: a lower `turn` runs before, an equal one beside it."""

    batch_id: str
    tokens: float
    deadline: float | None
    turn: tuple[float, int]

    @classmethod
    def of(cls, batch_id: str, tokens: float, deadline: float | None, priority: int, now: float) -> Claim:
        return cls(batch_id, tokens, deadline, (urgency(deadline, now), -priority))

    def due(self, deadline: float, now: float) -> Claim:
        """The same with another deadline."""
        return replace(self, deadline=deadline, turn=(urgency(deadline, now), self.turn[1]))


def claim(load: Load, meter: Meter, now: float) -> Claim:
    return Claim.of(load.batch_id, tokens_left(load, meter), load.deadline, load.priority, now)


def tokens_left(load: Load, meter: Meter) -> float:
    """0 for a batch that has not been validated: nobody knows."""
    if load.status == BatchStatus.VALIDATING:
        return expected_tokens(load.size, meter)
    if load.status != BatchStatus.IN_PROGRESS:
        return 0.0
    left = load.total - load.completed - load.failed
    if load.completed >= _TELLING_ROWS:
        return left * load.tokens / load.completed
    return left * expected_tokens(load.size, meter) / max(load.size.rows, 1)


def expected_tokens(size: BatchSize, meter: Meter) -> float:
    """Of all rows: the prompts' by their text, or with media by the model's rows so far if those were longer; the
    completions' by the model's rows so far, and never more than `max_tokens` allow."""
    rows = size.rows
    per_row, completion = meter.tokens_per_row(), meter.completion_per_row()
    prompts = size.prompt_bytes / _BYTES_PER_TOKEN
    if size.media and per_row is not None and completion is not None:
        prompts = max(prompts, rows * (per_row - completion))
    completions = rows * (_COMPLETION_PER_ROW if completion is None else completion)
    return prompts + min(completions, float(size.max_tokens))


def ahead(one: Claim, others: Iterable[Claim]) -> float:
    """Tokens that run before this batch ends: all of those before it, and an equal's as far as they take turns."""
    turn, most, total = one.turn, one.tokens, 0.0
    for other in others:
        if other.turn < turn:
            total += other.tokens
        elif other.turn == turn and other.batch_id != one.batch_id:
            total += min(other.tokens, most)
    return total


def eta(one: Claim, others: Iterable[Claim], meter: Meter, start_s: float, now: float) -> Eta | None:
    """None before the model's speed is known. `start_s`: until its engines are up."""
    likely, slow = meter.likely(), meter.slow()
    if not likely or not slow:
        return None
    tokens = one.tokens + ahead(one, others)
    p50 = now + start_s + tokens / likely
    # Even a steady speed is not a promise: a tenth is for what has not been seen yet.
    p90 = now + 1.5 * start_s + 1.1 * tokens / slow
    return Eta(p50, p90, at_risk=one.deadline is not None and p90 > one.deadline)


def admit(
    one: Claim,
    others: Sequence[Claim],
    meter: Meter,
    *,
    safety: float,
    now: float,
    since: float | None = None,
    replicas: int = 1,
) -> None:
    """Raises ServiceError `no_capacity` when the measured capacity does not do the work before the deadline, or not
    that of batches accepted before. `since`: when the window that would do is to begin; now by default. `replicas`: as
    many as there may be; the speed of one was measured."""
    capacity = max(replicas * (meter.replica() or 0.0), meter.capacity() or 0.0)
    if not capacity or one.deadline is None:
        return
    speed = capacity / safety
    if _fits(one, others, speed, now):
        return
    needed = (one.tokens + ahead(one, others)) / speed
    begin = now if since is None else since
    windows = (name for name, seconds in _WINDOWS if _fits(one.due(begin + seconds, now), others, speed, now))
    window = next(windows, None)
    would_do = f"a completion_window of {window} would do" if window else "no window of a week would do"
    raise ServiceError(
        "no_capacity",
        f"with the work at hand it takes about {_hours(needed)} at the measured speed, and does not end within its "
        f"window or makes others late; {would_do}",
        param="completion_window",
        retry_after_s=min(max(needed - (one.deadline - now), 60.0), 86_400.0),
    )


def _fits(one: Claim, others: Sequence[Claim], speed: float, now: float) -> bool:
    """Whether it ends in time, and every later one that would have ended in time without it still does."""
    assert one.deadline is not None
    if now + (one.tokens + ahead(one, others)) / speed > one.deadline:
        return False
    dated = sorted(
        (other.deadline, other.tokens) for other in others if other.deadline and other.batch_id != one.batch_id
    )
    tokens = 0.0
    for deadline, its_own in dated:
        tokens += its_own
        ends = now + tokens / speed
        if deadline >= one.deadline and ends <= deadline < ends + one.tokens / speed:
            return False
    return True


def _hours(seconds: float) -> str:
    return f"{seconds / 3600:.1f} h" if seconds >= 3600 else f"{seconds / 60:.0f} minutes"
