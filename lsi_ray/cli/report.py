"""What people and programs are told: progress while a batch runs, the summary at its end, and errors.

People read standard error (a live bar on a terminal, a line every ten seconds elsewhere); standard output holds the
result, as text or with `--json` as one object.
"""

from __future__ import annotations

import json
import os
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich.console import Console
from rich.markup import escape
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TaskID, TextColumn, TimeElapsedColumn
from rich.table import Table

from lsi_ray.archive.validate import Validation
from lsi_ray.delivery import Delivered
from lsi_ray.errors import BatchRefused, LsiError
from lsi_ray.ledger import records

if TYPE_CHECKING:
    from lsi_ray.stream.run import Snapshot

_LINE_S = 10.0
_WINDOW_S = 30.0
_FINDINGS_SHOWN = 20
_HINTS = {
    "model_not_found": "Give the config of the model that the rows name with -c; configs/ has some.",
    "invalid_json_line": "One request is one line of jobs.jsonl.",
}

Watch = Callable[["Snapshot"], None]


class Reporter:
    def __init__(self, as_json: bool) -> None:
        self._json = as_json
        # Streams of our own: what libraries write to the standard ones may be sent elsewhere (`library_output`).
        self._out, self._err = (Console(file=os.fdopen(os.dup(fd), "w"), highlight=False) for fd in (1, 2))
        self._began = time.monotonic()
        self._lock = threading.Lock()

    def say(self, message: str) -> None:
        with self._lock:
            self._err.print(f"[dim]{time.monotonic() - self._began:7.1f} s[/dim]  {escape(message)}", soft_wrap=True)

    def checked(self, checked: Validation) -> None:
        counts = checked.counts
        media = [
            f"{number:,} {name}" for name, number in (("images", counts.images), ("videos", counts.videos)) if number
        ]
        self.say(f"{checked.rows:,} rows" + (f" with {' and '.join(media)}" if media else ""))
        for warning in checked.warnings:
            self.say(f"note: {warning.message}")
        if checked.failures:
            first = checked.failures[0]
            self.say(
                f"{len(checked.failures):,} bad rows become error lines; the first, line {first.line}: {first.message}"
            )

    def resuming(self, progress: records.Progress) -> None:
        answered = progress.completed + progress.failed
        self.say(f"going on: {answered:,} of {progress.total:,} rows are already answered")

    @contextmanager
    def watching(self) -> Iterator[Watch]:
        """A display of the running stream; yields what to feed it with."""
        if self._json or not self._err.is_terminal:
            lines = _Lines(self.say)
            yield lines
            lines.end()
            return
        with _bar(self._err) as bar:
            yield _Bar(bar)

    def delivered(self, batch_id: str, target: str, delivered: Delivered, engine: dict[str, str]) -> None:
        summary = _summary(batch_id, target, delivered, engine, time.monotonic() - self._began)
        if self._json:
            print(json.dumps(summary, ensure_ascii=False), file=self._out.file, flush=True)
            return
        self._out.print(_summary_table(summary))
        if delivered.errors:
            self._out.print(_errors_table(delivered))
        self._out.print(f"[bold]{escape(target)}[/bold]")


class _Rate:
    """Tokens per second over the last half minute, and what is left at the rate of rows."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, records.Progress]] = []

    def add(self, progress: records.Progress) -> None:
        now = time.monotonic()
        self._samples.append((now, progress))
        while len(self._samples) > 2 and now - self._samples[0][0] > _WINDOW_S:
            self._samples.pop(0)

    def text(self) -> str:
        (begin, first), (end, last) = self._samples[0], self._samples[-1]
        seconds = end - begin
        rows = last.completed + last.failed - first.completed - first.failed
        if seconds <= 0 or rows <= 0:
            return ""
        prompt = (last.prompt_tokens - first.prompt_tokens) / seconds
        output = (last.completion_tokens - first.completion_tokens) / seconds
        left = (last.total - last.completed - last.failed) * seconds / rows
        return f"{prompt:,.0f} + {output:,.0f} tokens/s, {_duration(left)} left"


class _Lines:
    def __init__(self, say: Callable[[str], None]) -> None:
        self._say = say
        self._rate = _Rate()
        self._next = 0.0
        self._doing = ""
        self._last: records.Progress | None = None

    def __call__(self, snapshot: Snapshot) -> None:
        self._last = snapshot.progress
        self._rate.add(snapshot.progress)
        doing = _doing(snapshot)
        if doing == self._doing and time.monotonic() < self._next:
            return
        self._doing, self._next = doing, time.monotonic() + _LINE_S
        self._say("; ".join(part for part in (_counts(snapshot.progress), doing, self._rate.text()) if part))

    def end(self) -> None:
        """The last count, which may have come between two looks."""
        if self._last is not None:
            self._say(_counts(self._last))


class _Bar:
    def __init__(self, bar: Progress) -> None:
        self._bar = bar
        self._task: TaskID | None = None
        self._rate = _Rate()

    def __call__(self, snapshot: Snapshot) -> None:
        progress = snapshot.progress
        self._rate.add(progress)
        if self._task is None:
            self._task = self._bar.add_task("", total=progress.total)
        failed = f"{progress.failed:,} failed" if progress.failed else ""
        detail = ", ".join(part for part in (failed, self._rate.text(), _doing(snapshot)) if part)
        self._bar.update(
            self._task, completed=progress.completed + progress.failed, total=progress.total, description=detail
        )


def _counts(progress: records.Progress) -> str:
    return f"{progress.completed:,} done, {progress.failed:,} failed of {progress.total:,}"


def _bar(console: Console) -> Progress:
    return Progress(
        BarColumn(bar_width=24),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
        console=console,
        transient=True,
    )


def _doing(snapshot: Snapshot) -> str:
    """What the replicas are at, in words."""
    if snapshot.full:
        return "the disk of the work dir is full: waiting for space"
    replicas = snapshot.replicas
    if not replicas:
        return "starting workers" if snapshot.sessions < 2 else f"starting workers (session {snapshot.sessions})"
    ready = sum(replica.state == "ready" for replica in replicas)
    loading = sum(replica.state in ("loading", "restarting") for replica in replicas)
    failed = [replica for replica in replicas if replica.state == "failed"]
    words = [f"{ready} replica{'s' if ready != 1 else ''} up"] if ready else []
    words += [f"{loading} loading the model"] if loading else []
    words += [f"engine failed: {failed[-1].detail.splitlines()[-1][:120]}"] if failed and not ready else []
    return ", ".join(words)


def _summary(
    batch_id: str, target: str, delivered: Delivered, engine: dict[str, str], seconds: float
) -> dict[str, Any]:
    progress = delivered.progress
    return {
        "batch_id": batch_id,
        "output": target,
        "sha256": delivered.output.sha256,
        "bytes": delivered.output.size,
        "counts": delivered.output.counts,
        "usage": {
            **delivered.output.usage,
            "cached_tokens": progress.cached_tokens,
            "deduplicated": progress.deduplicated,
        },
        "rows_run_again": progress.rows_rerun,
        "seconds": round(seconds, 1),
        "engine": engine,
        "errors": [
            {"code": e.code, "rows": e.rows, "custom_id": e.custom_id, "message": e.message} for e in delivered.errors
        ],
    }


def _summary_table(summary: dict[str, Any]) -> Table:
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    counts, usage = summary["counts"], summary["usage"]
    table.add_row("rows", f"{counts['total']:,}: {counts['completed']:,} answered, {counts['failed']:,} failed")
    table.add_row("tokens", f"{usage['prompt_tokens']:,} prompt, {usage['completion_tokens']:,} completion")
    if summary["rows_run_again"]:
        table.add_row("run again", f"{summary['rows_run_again']:,} rows, after an interruption")
    table.add_row("time", _duration(summary["seconds"]))
    return table


def _errors_table(delivered: Delivered) -> Table:
    table = Table("rows", "error", "first", "message", box=None, padding=(0, 2, 0, 0))
    for error in delivered.errors:
        table.add_row(f"{error.rows:,}", error.code, escape(error.custom_id or "-"), escape(error.message[:160]))
    return table


def _duration(seconds: float) -> str:
    if seconds < 90:
        return f"{seconds:.0f} s"
    if seconds < 600:
        return f"{seconds // 60:.0f} min {seconds % 60:.0f} s"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes:02d} min" if hours else f"{minutes} min"


@contextmanager
def library_output(log: Path) -> Iterator[None]:
    """Send what libraries write to standard output and error to a file; ours still show.

    Ray prints its notices of dead workers on standard output, where `--json` promises one object.
    """
    sys.stdout.flush()
    saved = {fd: os.dup(fd) for fd in (1, 2)}
    with open(log, "ab", buffering=0) as file:
        for fd in saved:
            os.dup2(file.fileno(), fd)
    try:
        yield
    finally:
        sys.stdout.flush()
        for fd, copy in saved.items():
            os.dup2(copy, fd)
            os.close(copy)


def report_error(error: LsiError, as_json: bool) -> None:
    """One error, with every finding of a refused batch."""
    findings = error.findings if isinstance(error, BatchRefused) else []
    if as_json:
        listed = [{"code": f.code, "message": f.message, "line": f.line, "param": f.param} for f in findings]
        print(
            json.dumps({"error": {"code": error.code, "message": str(error), "findings": listed}}, ensure_ascii=False)
        )
        return
    console = Console(stderr=True, highlight=False)
    if not findings:
        console.print(f"[red]error[/red] ({error.code}): {escape(str(error))}")
        return
    console.print(f"[red]refused[/red]: {len(findings)} finding{'s' if len(findings) > 1 else ''}")
    for finding in findings[:_FINDINGS_SHOWN]:
        where = f"line {finding.line}: " if finding.line else ""
        console.print(f"  {where}{escape(finding.message)} ({finding.code})")
    for hint in sorted({_HINTS[finding.code] for finding in findings if finding.code in _HINTS}):
        console.print(f"  {hint}")
    if len(findings) > _FINDINGS_SHOWN:
        console.print(f"  ... and {len(findings) - _FINDINGS_SHOWN} more; --json lists them all")
