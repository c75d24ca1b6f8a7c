"""Make benchmarks/results/results.md of all JSON beside it: the newest of each case on each kind of machine.

    python benchmarks/results.py [FOLDER]

Peers first, a table for each kind of machine, with plots.py's pictures; then what the other scripts measured against
their bars. A rate that is not of a quiet machine is marked with ~. Of benchmarks/results itself, the README quotes the
ratios, between two marks.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from measure.host import hardware
from measure.report import QUIET, spread
from measure.result import RESULTS

_PEERS = ("raw", "run-batch", "ray-data-llm", "lsi")
PICTURES = ("ratios", "cpu", "gpu")
_README = Path(__file__).parents[1] / "README.md"
_BEGIN, _END = "<!-- measured: made by benchmarks/results.py -->\n", "<!-- /measured -->\n"


@dataclass(frozen=True, slots=True)
class Found:
    """One JSON file of a script that says on which machine it ran."""

    name: str
    machine: str
    content: dict[str, Any]

    @property
    def when(self) -> str:
        return f"{self.content['host']['date'][:10]}, {self.content['host']['commit'][:7]}"

    @property
    def is_peers(self) -> bool:
        return "case" in self.content

    @property
    def case(self) -> tuple[object, ...]:
        """What makes two results ones of the same thing."""
        if not self.is_peers:
            return self.content["benchmark"], self.machine
        case = self.content["case"]
        groups = case["groups"] if case["workload"] == "T2" else 0
        return case["workload"], Path(case["model"]).stem, groups, case["dummy"], self.machine


def load(folder: Path) -> list[Found]:
    """The newest of each case; files of other scripts, which have another form, are left out."""
    newest: dict[tuple[object, ...], Found] = {}
    for path in folder.glob("*.json"):
        content = json.loads(path.read_text())
        if not _is_ours(content):
            continue
        found = Found(path.name, hardware(content["host"]), content)
        before = newest.get(found.case)
        if before is None or before.content["host"]["date"] <= content["host"]["date"]:
            newest[found.case] = found
    return sorted(newest.values(), key=lambda found: (found.machine, *map(str, found.case)))


def peers_by_machine(found: Iterable[Found]) -> dict[str, list[Found]]:
    machines: dict[str, list[Found]] = {}
    for one in found:
        if one.is_peers:
            machines.setdefault(one.machine, []).append(one)
    return machines


def picture(machine: str, kind: str) -> str:
    """The file name of a picture of plots.py."""
    words = "".join(letter if letter.isalnum() else " " for letter in machine.lower()).split()
    return f"{'-'.join(words)}-{kind}.png"


def label(found: Found) -> str:
    case = found.content["case"]
    groups = f", {case['groups']} groups" if case["workload"] == "T2" else ""
    return f"{case['workload']} {Path(case['model']).stem}{' dummy' if case['dummy'] else ''}{groups}"


def write(folder: Path) -> Path:
    found = load(folder)
    parts = ["# Results\n\nMade by `python benchmarks/results.py` of the JSON beside it. Do not edit.\n"]
    for machine, cases in peers_by_machine(found).items():
        parts += [f"## Beside the peers: {machine}\n", _CAPTION, _peers_table(cases), _cpu_table(cases)]
        shown = [name for name in (picture(machine, kind) for kind in PICTURES) if (folder / name).exists()]
        parts += [f"![{name}]({name})\n" for name in shown]
    parts += ["## Against bars\n", _lines_table(one for one in found if not one.is_peers)]
    if other := _other_files(folder):
        parts += ["## More\n\nIn forms of their own, each with a table that its script prints:\n", other]
    path = folder / "results.md"
    path.write_text("\n".join(parts))
    return path


def quote(found: list[Found]) -> str:
    """The ratios of every case, and the bars, for the README."""
    parts = []
    for machine, cases in peers_by_machine(found).items():
        rows = [
            [
                label(one),
                _rate(one.content["summary"].get("lsi", {})),
                *_ratios(one),
                str(one.content["case"]["repeat"]),
            ]
            for one in cases
        ]
        columns = ["", "lsi, rows/s", *(f"lsi / {name}" for name in _PEERS[:3]), "runs"]
        parts.append(f"{machine}, {cases[-1].when}:\n\n{_table(columns, rows)}")
    bars = [line for one in found if not one.is_peers for line in one.content["lines"] if line["met"] is not None]
    words = {True: "met", False: "missed"}
    rows = [[line["what"], line["measured"], line["bar"], words[line["met"]]] for line in bars]
    return "\n".join([*parts, *([_table(["", "measured", "bar", ""], rows)] if rows else [])])


def write_readme(found: list[Found], readme: Path) -> None:
    text = readme.read_text()
    before, mark, rest = text.partition(_BEGIN)
    _, end, after = rest.partition(_END)
    if mark and end:
        readme.write_text(f"{before}{mark}\n{quote(found)}\n{end}{after}")


_CAPTION = """\
rows/s from the first row in the engine to the last one answered, medians of the runs; ratios are of the same repeat:
median (lowest-highest). `raw` is the engine fed from memory, in input order. hits: the share of prompt tokens that the
prefix cache had. tail: the last 5 % of rows. first row: from the first row in the engine to the first answer. ~: others
used more than 0.1 cores of the machine meanwhile, so that rates say little and CPU seconds more.
"""


def _other_files(folder: Path) -> str:
    """JSON of scripts with another form, and tables that scripts wrote themselves."""
    paths = [path for path in sorted(folder.glob("*.json")) if not _is_ours(json.loads(path.read_text()))]
    paths += [path for path in sorted(folder.glob("*.md")) if path.name != "results.md"]
    return "".join(f"- [{path.name}]({path.name})\n" for path in paths)


def _is_ours(content: Any) -> bool:
    return isinstance(content, dict) and "host" in content and bool({"summary", "lines"} & content.keys())


def _peers_table(cases: list[Found]) -> str:
    rows = [_peers_row(found) for found in cases]
    columns = ["", "rows", "runs", *(f"{name} rows/s" for name in _PEERS), *(f"lsi / {name}" for name in _PEERS[:3])]
    return _table([*columns, "out tokens/s", "hits (best peer)", "tail (raw)", "first row s", "when"], rows)


def _peers_row(found: Found) -> list[str]:
    summary = found.content["summary"]
    lsi = summary.get("lsi", {})
    others = [summary[name] for name in ("run-batch", "ray-data-llm") if summary.get(name, {}).get("runs")]
    raw = summary.get("raw", {})
    return [
        label(found),
        f"{found.content['case']['rows']:,}",
        str(found.content["case"]["repeat"]),
        *(_rate(summary.get(name, {})) for name in _PEERS),
        *_ratios(found),
        f"{lsi['output_tokens_per_s']:,.0f}" if lsi.get("runs") else "",
        f"{lsi['hit_rate']:.0%} ({max((one['hit_rate'] for one in others), default=0):.0%})" if lsi.get("runs") else "",
        f"{lsi['tail_share']:.1%} ({raw.get('tail_share', 0):.1%})" if lsi.get("runs") else "",
        f"{lsi['first_row_s']:.2f}" if lsi.get("runs") else "",
        found.when,
    ]


def _ratios(found: Found) -> list[str]:
    ratio = found.content["summary"].get("lsi", {}).get("ratio") or {}
    return [spread(ratio.get(name)) for name in _PEERS[:3]]


def _rate(entry: dict[str, Any]) -> str:
    if not entry.get("runs"):
        return "failed" if entry else ""
    return f"{'~' if entry['others_cpu_share'] > QUIET else ''}{entry['rows_per_s']:.1f}"


def _cpu_table(cases: list[Found]) -> str:
    rows = []
    for found in cases:
        for name, entry in found.content["summary"].items():
            if entry.get("runs"):
                parts = [f"{part} {spent:.2f}" for part, spent in entry["cpu_s_per_1000"].items() if spent >= 0.1]
                total = f"{entry['cpu_s_per_1000_all']:.1f}"
                rows.append(
                    [label(found), name, total, f"{entry['peak_bytes'] / 1e9:.1f}", _gpu(entry), ", ".join(parts)]
                )
    gpu = "GPU; rows waiting" if any(row[4] for row in rows) else ""
    columns = ["", "", "CPU s / 1,000 rows", "peak GB", gpu, "by process"]
    kept = [index for index, column in enumerate(columns) if index != 4 or column]
    return _table([columns[index] for index in kept], [[row[index] for index in kept] for row in rows])


def _gpu(entry: dict[str, Any]) -> str:
    if not entry.get("gpu"):
        return ""
    waiting = entry["scheduler"] or {}
    return f"{entry['gpu']['utilisation']:.0f} %, {entry['gpu']['power_w']:.0f} W; {waiting.get('waiting', 0):.0f}"


def _lines_table(found: Iterable[Found]) -> str:
    words = {True: "met", False: "**missed**", None: ""}
    rows = [
        [line["what"], line["measured"], line["bar"], words[line["met"]], one.machine, one.when]
        for one in found
        for line in one.content["lines"]
    ]
    return _table(["", "measured", "bar", "", "machine", "when"], rows)


def _table(columns: list[str], rows: list[list[str]]) -> str:
    lines = [columns, ["---"] * len(columns), *rows]
    return "".join(f"| {' | '.join(cell.replace('|', '/') for cell in line)} |\n" for line in lines)


if __name__ == "__main__":
    folder = Path(sys.argv[1]) if len(sys.argv) > 1 else RESULTS
    print(write(folder))
    if folder.resolve() == RESULTS.resolve():
        write_readme(load(folder), _README)
