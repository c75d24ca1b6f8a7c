"""Runs to a summary, and a summary to a table that people read: medians, and ratios with their spread."""

from __future__ import annotations

from statistics import median
from typing import Any

from rich.console import Console
from rich.table import Table

QUIET = 0.1  # cores that others may use: with 1 of 2 cores taken, raw itself went from 56 to 44 rows/s

Runs = dict[str, list[dict[str, Any]]]
"""Contender -> one entry per repeat; repeats stand at the same place in each list."""

_MEDIANS = (
    "rows_per_s",
    "prompt_tokens_per_s",
    "output_tokens_per_s",
    "hit_rate",
    "engine_start_s",
    "start_s",
    "first_row_s",
    "tail_s",
    "tail_share",
    "starved_share",
    "cpu_s_per_1000_all",
    "others_cpu_share",
    "peak_bytes",
)


def summarise(runs: Runs) -> dict[str, dict[str, Any]]:
    """Contender -> medians, CPU by process, and rows/s against `raw` (of the same repeat) as low, median, high."""
    summary: dict[str, dict[str, Any]] = {}
    for name, all_of_it in runs.items():
        good = [run for run in all_of_it if "error" not in run]
        entry: dict[str, Any] = {"runs": len(good), "errors": [run["error"] for run in all_of_it if "error" in run]}
        if good:
            entry |= {key: _median(run[key] for run in good) for key in _MEDIANS}
            entry["cpu_s_per_1000"] = _by_process(good)
            entry["gpu"], entry["scheduler"] = (_means(good, key) for key in ("gpu", "scheduler"))
            entry["ratio"] = {other: ratio(runs, name, other) for other in runs if other != name}
        summary[name] = entry
    return summary


def ratio(runs: Runs, name: str, other: str) -> dict[str, float] | None:
    """Rows/s of `name` over those of `other`, repeat by repeat: a slow minute of the machine hits both."""
    pairs = zip(runs[name], runs[other], strict=False)
    found = sorted(a["rows_per_s"] / b["rows_per_s"] for a, b in pairs if "error" not in a and "error" not in b)
    return {"low": found[0], "median": median(found), "high": found[-1]} if found else None


def show(title: str, summary: dict[str, dict[str, Any]], console: Console) -> None:
    console.print(_cpu_table(summary))
    for name, entry in summary.items():
        for error in entry["errors"]:
            console.print(f"[red]{name}[/red]: {error}", soft_wrap=True)
    console.print(_table(title, summary))
    loud = [name for name, entry in summary.items() if entry["runs"] and entry["others_cpu_share"] > QUIET]
    if loud:
        console.print(f"not a quiet machine during {', '.join(loud)}: compare CPU seconds, not rows/s", style="yellow")


def _table(title: str, summary: dict[str, dict[str, Any]]) -> Table:
    table = Table(title=title, title_justify="left", caption=_CAPTION, caption_justify="left")
    for column in ("", *_COLUMNS):
        table.add_column(column, justify="right" if column else "left")
    for name, entry in summary.items():
        if entry["runs"]:
            table.add_row(name, *_cells(entry, summary.get("lsi", {}).get("ratio", {}).get(name)))
        else:
            table.add_row(name, "failed")
    return table


_COLUMNS = (
    *("rows/s", "of raw", "lsi is", "tokens in/s", "out/s", "hits", "start s", "engine s", "first row s"),
    *("tail", "starved", "CPU s/1,000", "peak GB", "others' CPU"),
)
_CAPTION = (
    "rows/s: first row in the engine to last row answered. of raw: over those of raw in the same repeat, as median "
    "(lowest-highest); lsi is: lsi's over this contender's. start: command to first row in the engine; of which "
    "engine: its construction. first row: from there to the first answer. tail: the last 5 % of rows. starved: the "
    "engine held fewer rows than it can run, and more were to come. others' CPU: cores that the rest of the machine "
    "used meanwhile."
)


def spread(found: dict[str, float] | None) -> str:
    return f"{found['median']:.2f} ({found['low']:.2f}-{found['high']:.2f})" if found else ""


def _cells(entry: dict[str, Any], lsi: dict[str, float] | None) -> list[str]:
    engine = entry["engine_start_s"]
    return [
        f"{entry['rows_per_s']:.1f}",
        spread((entry["ratio"] or {}).get("raw")),
        spread(lsi),
        f"{entry['prompt_tokens_per_s']:,.0f}",
        f"{entry['output_tokens_per_s']:,.0f}",
        f"{entry['hit_rate']:.0%}",
        f"{entry['start_s']:.1f}",
        "" if engine is None else f"{engine:.1f}",
        f"{entry['first_row_s']:.2f}",
        f"{entry['tail_share']:.0%}",
        f"{entry['starved_share']:.0%}",
        f"{entry['cpu_s_per_1000_all']:.1f}",
        f"{entry['peak_bytes'] / 1e9:.1f}",
        f"{entry['others_cpu_share']:.2f}",
    ]


def _cpu_table(summary: dict[str, dict[str, Any]]) -> Table:
    table = Table("", "CPU seconds per 1,000 rows, by process", title_justify="left")
    for name, entry in summary.items():
        parts = entry.get("cpu_s_per_1000", {})
        table.add_row(name, ", ".join(f"{label} {spent:.2f}" for label, spent in parts.items() if spent >= 0.05))
    return table


def _by_process(good: list[dict[str, Any]]) -> dict[str, float]:
    labels = {label for run in good for label in run["cpu_s_per_1000"]}
    medians = {label: median(run["cpu_s_per_1000"].get(label, 0.0) for run in good) for label in labels}
    return dict(sorted(medians.items(), key=lambda item: -item[1]))


def _means(good: list[dict[str, Any]], key: str) -> dict[str, float] | None:
    taken = [run[key] for run in good if run[key]]
    return {name: median(one[name] for one in taken) for name in taken[0]} if taken else None


def _median(values: Any) -> float | None:
    known = [value for value in values if value is not None]
    return median(known) if known else None
