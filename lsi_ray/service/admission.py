"""How long work takes: what may be accepted, when a batch ends, and whether its window is at risk.

Work is counted in tokens, prompt and completion together, because that is what an engine's speed is steady in. A batch
that runs is estimated by its own rows; one that has not begun by its prompt bytes and the model's completions so far.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from lsi_ray.ledger.service_records import Served
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.ledger.turns import urgency
from lsi_ray.service.backend import Eta, ServiceError
from lsi_ray.service.speed import Meter

_BYTES_PER_TOKEN = 4.0
_TOKENS_PER_ROW = 500.0  # before anything was measured
_WINDOWS = (("15m", 900), ("1h", 3600), ("6h", 21_600), ("24h", 86_400), ("48h", 172_800), ("7d", 604_800))


@dataclass(frozen=True, slots=True)
class Claim:
    """What a batch has still to do, and when it comes up."""

    batch_id: str
    tokens: float
    deadline: float | None
    priority: int

    def before(self, other: Claim, now: float) -> bool:
        """Whether it runs before `other`, which it shares the engines with otherwise."""
        mine, others = urgency(self.deadline, now), urgency(other.deadline, now)
        return (mine, -self.priority) < (others, -other.priority)


def claim(served: Served, meter: Meter) -> Claim:
    batch = served.batch
    return Claim(batch.batch_id, tokens_left(served, meter), batch.deadline, batch.priority)


def tokens_left(served: Served, meter: Meter) -> float:
    progress, batch = served.progress, served.batch
    if batch.status == BatchStatus.VALIDATING:
        return served.state.prompt_bytes / _BYTES_PER_TOKEN
    if batch.status != BatchStatus.IN_PROGRESS:
        return 0.0
    left = progress.total - progress.completed - progress.failed
    return left * _tokens_per_row(served, meter)


def _tokens_per_row(served: Served, meter: Meter) -> float:
    progress = served.progress
    if progress.completed >= 20:
        return (progress.prompt_tokens + progress.completion_tokens) / progress.completed
    if served.batch.plan_rows and served.state.prompt_bytes:
        by_bytes = served.state.prompt_bytes / served.batch.plan_rows / _BYTES_PER_TOKEN
        return max(by_bytes, meter.tokens_per_row() or 0.0)
    return meter.tokens_per_row() or _TOKENS_PER_ROW


def ahead(one: Claim, others: Iterable[Claim], now: float) -> float:
    """Tokens that run before this batch ends: all of those before it, and an equal's as far as they take turns."""
    total = 0.0
    for other in others:
        if other.batch_id == one.batch_id:
            continue
        if other.before(one, now):
            total += other.tokens
        elif not one.before(other, now):
            total += min(other.tokens, one.tokens)
    return total


def eta(one: Claim, others: Iterable[Claim], meter: Meter, start_s: float, now: float) -> Eta | None:
    """None before the model's speed is known. `start_s`: until its engines are up."""
    likely, slow = meter.tokens_per_s(0.5), meter.tokens_per_s(0.1)
    if not likely or not slow:
        return None
    tokens = one.tokens + ahead(one, others, now)
    p50 = now + start_s + tokens / likely
    # Even a steady speed is not a promise: a tenth is for what has not been seen yet.
    p90 = now + 1.5 * start_s + 1.1 * tokens / min(slow, likely)
    return Eta(p50, p90, at_risk=one.deadline is not None and p90 > one.deadline)


def admit(one: Claim, others: Iterable[Claim], meter: Meter, *, safety: float, now: float) -> None:
    """Raises ServiceError `no_capacity` when the measured speed does not do the work in the window."""
    speed = meter.tokens_per_s(0.5)
    if not speed or one.deadline is None:
        return
    needed = safety * (one.tokens + ahead(one, others, now)) / speed
    if now + needed <= one.deadline:
        return
    window = next((name for name, seconds in _WINDOWS if seconds >= needed), None)
    would_do = f"a completion_window of {window} would do" if window else "no window of a week would do"
    raise ServiceError(
        "no_capacity",
        f"the work at hand takes about {needed / 3600:.1f} h at the measured speed, longer than the window; {would_do}",
        param="completion_window",
        retry_after_s=min(max(needed - (one.deadline - now), 60.0), 86_400.0),
    )
