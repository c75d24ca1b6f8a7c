"""What `lsi tune` shows: lines while it goes on, the table of candidates, and what came of it."""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path

from rich.console import Console
from rich.markup import escape
from rich.table import Table

from lsi_ray.tune.candidate import Candidate
from lsi_ray.tune.search import Found, Trial


def rated(trial: Trial) -> str:
    if trial.failure is not None:
        return f"it does not run ({trial.failure[:120]})"
    return f"{trial.score:.2f} rows/s" + (" per GPU" if trial.first.gpus else "")


class Said:
    """What people see: lines on standard error as it goes, the table and the conclusion on standard output."""

    def __init__(self, as_json: bool, clock: Callable[[], float] = time.monotonic) -> None:
        self._err = Console(stderr=True, highlight=False)
        # In a pipe there is no width to keep to.
        self._out = Console(highlight=False, width=None if sys.stdout.isatty() else 200)
        self._json = as_json
        self._clock = clock
        self._began = clock()

    def say(self, message: str) -> None:
        self._err.print(f"[dim]{self._clock() - self._began:7.1f} s[/dim]  {escape(message)}", soft_wrap=True)

    def tell(self, found: Found, trial: Trial) -> None:
        first = trial.first
        if first.failure is not None:
            self.say(f"{trial.candidate}: failed: {first.failure}")
            return
        given = found.given.score
        against = f", {trial.score / given - 1:+.1%}" if given and trial is not found.given else ""
        self.say(f"{trial.candidate}: {rated(trial)}{against}{', given up' if first.cut else ''}")

    def table(self, found: Found) -> None:
        table = Table(box=None, padding=(0, 2, 0, 0))
        for name in (
            "candidate",
            "rows/s",
            "against given",
            "tokens/s in + out",
            "ran at once",
            "KV used",
            "preempted",
        ):
            table.add_column(name, justify="left" if name == "candidate" else "right")
        table.add_column("")
        for trial in sorted(found.trials.values(), key=lambda one: -one.score):
            table.add_row(*_row(found, trial))
        self._out.print(table)

    def conclusion(self, output: Path, found: Found, comments_kept: bool) -> None:
        assert found.best is not None
        if found.best == Candidate():
            self._out.print(f"{_verdict(found)} ({escape(found.ended)}): go on with {escape(str(output))}")
            return
        if not comments_kept:
            self._out.print("The comments of the config are not in the new one: its YAML could not be edited in place.")
        gain = f"{found.gain:+.1%} against the given one" if found.gain is not None else "the given one does not run"
        sure = "" if found.confirmed or found.gain is None else ", measured once: there was no time for a second look"
        self._out.print(
            f"[bold]{escape(str(output))}[/bold]: {escape(str(found.best))}; {gain}{sure} ({escape(found.ended)})"
        )


def _verdict(found: Found) -> str:
    """Of a search that ends where it began: how much there is behind that."""
    others = [trial for trial in found.trials.values() if trial is not found.given]
    if not others:
        return "Only the given config was measured"
    failed = sum(trial.failure is not None for trial in others)
    if failed == len(others):
        return f"Nothing but the given config ran: {failed} others failed"
    return f"The given config is the best of {len(others) - failed + 1}"


def _row(found: Found, trial: Trial) -> list[str]:
    first, given = trial.first, found.given.score
    name = f"[bold]{trial.candidate}[/bold]" if trial.candidate == found.best else str(trial.candidate)
    if first.failure is not None:
        return [name, "-", "-", "-", "-", "-", "-", escape(first.failure[:120])]
    against = f"{trial.score / given - 1:+.1%}" if given else "-"
    load = first.load
    known = [f"{load.running_max:,}", f"{load.kv_used_max:.0%}", f"{load.preemptions:,}"]
    notes = [
        word
        for word, so in (("given up", first.cut), ("few rows", first.short), ("twice", len(trial.measurements) > 1))
        if so
    ]
    tokens = f"{first.prompt_tokens_per_s:,.0f} + {first.output_tokens_per_s:,.0f}"
    return [name, f"{trial.score:,.2f}", against, tokens, *(known if load.running_max else ["-"] * 3), ", ".join(notes)]
