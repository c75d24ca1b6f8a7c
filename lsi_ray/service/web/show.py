"""Numbers, times and words for people."""

from __future__ import annotations

from datetime import UTC, datetime

from markupsafe import Markup

from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.window import show_duration
from lsi_ray.service.api.wire_names import in_wire_words
from lsi_ray.service.backend import BatchView

_WORDS = {
    BatchStatus.VALIDATING: "checking the input",
    BatchStatus.IN_PROGRESS: "running",
    BatchStatus.FINALIZING: "delivering",
    BatchStatus.COMPLETED: "completed",
    BatchStatus.FAILED: "failed",
    BatchStatus.EXPIRED: "window ended",
    BatchStatus.CANCELLING: "cancelling",
    BatchStatus.CANCELLED: "cancelled",
}
_MARKS = {
    BatchStatus.COMPLETED: "✓",
    BatchStatus.FAILED: "✗",
    BatchStatus.EXPIRED: "⌛",
    BatchStatus.CANCELLED: "–",
}


def status_word(view: BatchView) -> str:
    if view.status == BatchStatus.VALIDATING and view.accepted:
        return "accepted"
    if view.status == BatchStatus.IN_PROGRESS and not view.started:
        return "waiting"
    return _WORDS[view.status]


def status_mark(view: BatchView) -> str:
    """A sign beside the word, so that no state is told by its colour."""
    return _MARKS.get(view.status, "●")


def when(at: float) -> Markup:
    """In UTC; the script writes the reader's own time in its place."""
    moment = datetime.fromtimestamp(at, UTC)
    text, machine = moment.strftime("%Y-%m-%d %H:%M UTC"), moment.strftime("%Y-%m-%dT%H:%M:%SZ")
    return Markup('<time datetime="{}">{}</time>').format(machine, text)


def number(value: float) -> str:
    return f"{value:,.0f}"


def rate(value: float) -> str:
    """Three digits or more: 0.0123, 4.56, 1,234."""
    return f"{value:,.0f}" if value >= 100 else f"{value:.3g}"


def size(count: float) -> str:
    for unit in ("B", "KB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:.3g} TB"


def percent(part: float, whole: float) -> str:
    """100 % only when nothing is left."""
    if not whole:
        return "0 %"
    share = 100 * part / whole
    return f"{min(share, 99.9) if part < whole else 100:.3g} %"


FILTERS = {
    "duration": show_duration,
    "number": number,
    "rate": rate,
    "size": size,
    "status_mark": status_mark,
    "status_word": status_word,
    "when": when,
    "wire": in_wire_words,
}
