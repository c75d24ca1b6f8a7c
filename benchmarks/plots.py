"""Pictures of what peers.py measured, from its JSON: PNG files beside it, for each kind of machine.

    python benchmarks/plots.py [FOLDER]

ratios: rows/s of each contender over raw's, with the spread over the repeats. cpu: CPU seconds per 1,000 rows, stacked
by process. gpu: utilisation, where it was sampled.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import matplotlib as mpl
from measure.result import RESULTS
from results import Found, label, load, peers_by_machine, picture

mpl.use("Agg")

from matplotlib import pyplot as plt

_COLOURS = {"raw": "#9a9a9a", "run-batch": "#d9822b", "ray-data-llm": "#3d7ab5", "lsi": "#2a9d5c"}
_PARTS = 7  # processes that get a colour of their own; the rest is "other"
_DPI = 130
_BESIDE: dict[str, Any] = {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "fontsize": 8, "frameon": False}


def main(folder: Path) -> None:
    for machine, cases in peers_by_machine(load(folder)).items():
        for kind, draw in (("ratios", ratios), ("cpu", cpu), ("gpu", gpu)):
            figure = draw(cases)
            if figure is not None:
                figure.suptitle(f"{machine}, {cases[0].when.split(',')[0]}", fontsize=9)
                path = folder / picture(machine, kind)
                figure.savefig(path, dpi=_DPI, bbox_inches="tight", metadata={"Software": None})
                plt.close(figure)
                print(path)


def ratios(cases: list[Found]) -> Any:
    """Bars per workload; the whisker goes from the lowest to the highest repeat."""
    figure, axes = plt.subplots(figsize=(9, 0.7 + 0.75 * len(cases)))
    names = [name for name in _COLOURS if name != "raw"]
    for row, found in enumerate(cases):
        for place, name in enumerate(names):
            ratio = (found.content["summary"].get(name, {}).get("ratio") or {}).get("raw")
            if ratio is None:
                continue
            whisker = [[ratio["median"] - ratio["low"]], [ratio["high"] - ratio["median"]]]
            at = row + 0.26 * (place - 1)
            axes.barh(at, ratio["median"], 0.24, color=_COLOURS[name], xerr=whisker, ecolor="#333333", capsize=2)
            axes.text(ratio["high"] + 0.01, at, f"{ratio['median']:.2f}", va="center", fontsize=7)
    axes.axvline(1.0, color=_COLOURS["raw"], linestyle="--", linewidth=1)
    _finish(axes, [label(found) for found in cases], "rows/s over raw's (the engine fed from memory, in input order)")
    keys = [plt.Rectangle((0, 0), 1, 1, color=_COLOURS[name], label=name) for name in names]
    axes.legend(handles=keys, **_BESIDE)
    return figure


def cpu(cases: list[Found]) -> Any:
    """Stacked bars, a contender each; every case on a scale of its own."""
    shown = _largest([entry["cpu_s_per_1000"] for _, _, entry in _entries(cases)])
    figure, all_axes = plt.subplots(len(cases), figsize=(9, 1.7 * len(cases)), squeeze=False, layout="constrained")
    for axes, found in zip(all_axes[:, 0], cases, strict=True):
        bars = [(name, entry["cpu_s_per_1000"]) for _, name, entry in _entries([found])]
        left = [0.0] * len(bars)
        for part in [*shown, "other"]:
            widths = [_part(parts, part, shown) for _, parts in bars]
            axes.barh(range(len(bars)), widths, 0.75, left=left, label=part)
            left = [begin + width for begin, width in zip(left, widths, strict=True)]
        _finish(axes, [name for name, _ in bars], f"{label(found)}: CPU seconds per 1,000 rows")
    all_axes[0, 0].legend(**_BESIDE)
    return figure


def _largest(bars: list[dict[str, float]]) -> list[str]:
    """The processes with the largest shares of their bars."""
    sums: dict[str, float] = {}
    for parts in bars:
        for part, spent in parts.items():
            sums[part] = sums.get(part, 0.0) + spent / sum(parts.values())
    return sorted(sums, key=lambda part: -sums[part])[:_PARTS]


def gpu(cases: list[Found]) -> Any | None:
    bars = [
        (f"{label(found)}  {name}", name, entry["gpu"]) for found, name, entry in _entries(cases) if entry.get("gpu")
    ]
    if not bars:
        return None
    figure, axes = plt.subplots(figsize=(9, 0.7 + 0.3 * len(bars)))
    values = [sampled["utilisation"] for *_, sampled in bars]
    axes.barh(range(len(bars)), values, 0.75, color=[_COLOURS[name] for _, name, _ in bars])
    _finish(axes, [name for name, *_ in bars], "GPU utilisation, percent of the time")
    return figure


def _entries(cases: list[Found]) -> list[tuple[Found, str, dict[str, Any]]]:
    return [
        (found, name, entry)
        for found in cases
        for name, entry in found.content["summary"].items()
        if entry.get("runs") and name in _COLOURS
    ]


def _part(parts: dict[str, float], part: str, shown: list[str]) -> float:
    if part == "other":
        return sum(spent for name, spent in parts.items() if name not in shown)
    return parts.get(part, 0.0)


def _finish(axes: Any, names: list[str], what: str) -> None:
    axes.set_yticks(range(len(names)), names, fontsize=8)
    axes.invert_yaxis()
    axes.tick_params(labelsize=8)
    axes.set_xlabel(what, fontsize=8)
    axes.spines[["top", "right"]].set_visible(False)


if __name__ == "__main__":
    main(Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS)
