"""The states of a batch, in OpenAI's words, and the one table of the steps between them.

Only `in_progress` takes results: from the moment a batch leaves it, its set of finished rows stands still, so that
whoever packs the output sees one unchanging set. `finalizing` carries the outcome it is heading for (`completed` or
`expired`). Terminal is terminal: no step leads out.
"""

from __future__ import annotations

from enum import StrEnum

from lsi_ray.errors import LedgerError


class BatchStatus(StrEnum):
    VALIDATING = "validating"
    FAILED = "failed"
    IN_PROGRESS = "in_progress"
    FINALIZING = "finalizing"
    COMPLETED = "completed"
    EXPIRED = "expired"
    CANCELLING = "cancelling"
    CANCELLED = "cancelled"

    @property
    def terminal(self) -> bool:
        return not TRANSITIONS[self]


S = BatchStatus

TRANSITIONS: dict[BatchStatus, frozenset[BatchStatus]] = {
    # straight to finalizing: the window ended before validation did
    S.VALIDATING: frozenset({S.IN_PROGRESS, S.FAILED, S.FINALIZING, S.CANCELLING}),
    # failed while running: the engine of this model cannot start
    S.IN_PROGRESS: frozenset({S.FINALIZING, S.FAILED, S.CANCELLING}),
    # back to in_progress: a segment was found corrupt while packing, and its rows must run again
    S.FINALIZING: frozenset({S.COMPLETED, S.EXPIRED, S.CANCELLING, S.FAILED, S.IN_PROGRESS}),
    S.CANCELLING: frozenset({S.CANCELLED}),
    S.COMPLETED: frozenset(),
    S.FAILED: frozenset(),
    S.EXPIRED: frozenset(),
    S.CANCELLED: frozenset(),
}


def check(current: BatchStatus, to: BatchStatus) -> None:
    """Raise LedgerError `illegal_transition` unless the table declares the step."""
    if to not in TRANSITIONS[current]:
        allowed = ", ".join(sorted(TRANSITIONS[current])) or "nothing, it is terminal"
        raise LedgerError(
            "illegal_transition", f"a batch that is {current} cannot become {to} (declared from here: {allowed})"
        )
