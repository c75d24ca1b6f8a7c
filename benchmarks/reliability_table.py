"""What was done to it, what did it cost, what broke? The results of `make chaos` as one table.

    python benchmarks/reliability_table.py

Reads what machines wrote into benchmarks/results: reliability-simulation.json (reliability.py), reliability-chaos.jsonl
(tests/chaos) and fuzz_archive.json (fuzz_archive.py, run by hand). Writes reliability.md beside them: none of its
figures is typed by hand, and a source that is missing is named.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from measure.host import describe

RESULTS = Path(__file__).parent / "results"
COLUMNS = ("promise", "what was done", "seeds", "how much", "run twice / in flight", "PUTs", "broken", "date, commit")
PROMISES = {
    "run": "a killed process loses nothing",
    "service": "a killed process loses nothing",
    "vllm": "a killed process loses nothing",
    "head": "a lost head loses nothing",
    "hung": "what hangs is replaced, what is slow is not",
    "poison": "a poison row ends alone",
    "disk": "a full disk is waited for",
    "capacity": "missing GPUs are waited for",
    "drain": "an announced end costs what is in flight",
}


@dataclass
class Line:
    promise: str
    done: str
    amount: str
    broken: str
    made: str
    seeds: str = ""
    again: str = ""
    puts: str = ""

    def cells(self) -> tuple[str, ...]:
        return self.promise, self.done, self.seeds, self.amount, self.again, self.puts, self.broken, self.made


@dataclass
class Group:
    """The runs of one test that did the same: a storm with many seeds."""

    test: str
    done: str
    records: list[dict[str, Any]] = field(default_factory=list)

    def line(self, broken: str) -> Line:
        last = self.records[-1]
        return Line(
            PROMISES.get(self.test.split("test_chaos_")[-1].split(".")[0], ""),
            self.done,
            ". ".join(filter(None, [self._rows(), self._kills(), self._times()])),
            broken,
            _made(last),
            seeds=", ".join(str(record["seed"]) for record in self.records if record["seed"] is not None),
            again=self._again(),
            puts=_sum(self.records, "puts"),
        )

    def _rows(self) -> str:
        return f"{sum(record['rows'] for record in self.records):,} rows"

    def _kills(self) -> str:
        total: dict[str, int] = {}
        for record in self.records:
            for victim, count in (record["kills"] or {}).items():
                total[victim] = total.get(victim, 0) + count
        told = ", ".join(f"{victim} {count}" for victim, count in sorted(total.items()))
        return f"{sum(total.values())} kills ({told})" if total else ""

    def _times(self) -> str:
        seconds = [record["seconds"] for record in self.records if record["seconds"] is not None]
        took = f"{min(seconds)} to {max(seconds)} s" if len(seconds) > 1 else f"{seconds[0]} s" if seconds else ""
        return ", ".join(filter(None, [took, self.records[-1]["note"]]))

    def _again(self) -> str:
        in_flight = _sum(self.records, "in_flight")
        return _sum(self.records, "run_again") + (f" / {in_flight}" if in_flight else "")


def _sum(records: list[dict[str, Any]], name: str) -> str:
    """Empty where no record has it."""
    found = [record[name] for record in records if record[name] is not None]
    return f"{sum(found):,}" if found else ""


def _made(source: dict[str, Any]) -> str:
    return f"{source['date']}, {source['commit']}"


def simulation(source: dict[str, Any]) -> Iterator[Line]:
    promise, made = "no order of events breaks the ledger", _made(source)
    lives, exits, planted = source["lives"], source["exits"], source["planted"]
    faults = lives["happened"]
    yield Line(
        promise,
        f"simulated lives of the service under {len(faults)} kinds of faults: {_most(faults)}",
        f"{lives['lives']:,} lives in {lives['seconds'] / 60:.1f} min: {lives['batches']:,} batches, "
        f"{sum(faults.values()):,} faults, {lives['disk_steps']:,} steps on the disk",
        str(lives["broken"]),
        made,
        seeds=f"0 to {lives['lives'] - 1:,}",
    )
    yield Line(
        promise,
        "the end at each step on the disk of two lives, by kill and by power cut (torn last page), before and after it",
        f"{exits['happened']['exits']:,} exits: {_most(source['steps'])}",
        str(exits["broken"]),
        made,
    )
    found = {name: seeds for name, seeds in planted.items() if seeds}
    yield Line(
        promise,
        f"bugs planted on purpose: {', '.join(sorted(planted))}",
        f"{len(found)} of {len(planted)} found, after {min(found.values())} to {max(found.values())} seeds",
        f"{len(planted) - len(found)} not found",
        made,
    )


def _most(counts: dict[str, int]) -> str:
    return ", ".join(f"{name} {count:,}" for name, count in counts.items())


def chaos(records: list[dict[str, Any]]) -> Iterator[Line]:
    groups: dict[tuple[str, str], Group] = {}
    outcomes = {record["test"]: record for record in records if "outcome" in record}
    for record in records:
        if "done" in record:
            key = record["test"].split("::")[0], record["done"]
            groups.setdefault(key, Group(*key)).records.append(record)
    for group in groups.values():
        tests = {record["test"] for record in group.records}
        failed = [test for test in tests if outcomes.get(test, {}).get("outcome") != "passed"]
        yield group.line(f"{len(failed)}")
    told = {record["test"] for record in records if "done" in record}
    for test, outcome in outcomes.items():
        if test not in told:
            yield Line("", test.split("::")[-1], "", outcome["outcome"], _made(outcome))


def fuzzing(source: dict[str, Any]) -> Iterator[Line]:
    runs = source["runs"]
    minutes, cases = sum(run["minutes"] for run in runs), sum(run["cases"] for run in runs)
    slowest = max(run.get("slowest_s", 0.0) for run in runs)
    told = [": ".join(filter(None, [run.get("note"), "; ".join(run["findings"])])) for run in runs if run["findings"]]
    yield Line(
        "no archive does harm",
        "damaged and forged archives, fuzzed by hand; what is accepted is compared with tarfile, zlib and json",
        f"{cases:,} cases in {minutes:,.0f} min, the slowest {slowest} s",
        "; ".join([str(sum(run["failures"] for run in runs)), *told]),
        "; ".join(_made(run) for run in runs),
    )


def table(lines: list[Line]) -> str:
    rows = [COLUMNS, tuple("---" for _ in COLUMNS), *(line.cells() for line in lines)]
    return "\n".join("| " + " | ".join(cell.replace("|", "/") for cell in row) + " |" for row in rows)


def main() -> int:
    lines, missing = [], []
    sources: list[tuple[str, Any, Any]] = [
        ("reliability-simulation.json", json.loads, simulation),
        ("reliability-chaos.jsonl", lambda text: [json.loads(line) for line in text.splitlines()], chaos),
        ("fuzz_archive.json", json.loads, fuzzing),
    ]
    for name, read, tell in sources:
        path = RESULTS / name
        if path.exists():
            lines += tell(read(path.read_text()))
        else:
            missing.append(name)
    hardware = describe()["hardware"]
    text = f"""# What was done to it, what it cost, what broke

Written by `make chaos` (benchmarks/reliability_table.py) from the JSON files beside it, on {hardware["cores"]} cores of
{hardware["cpu"]} with {hardware["memory_gib"]} GiB. "Run twice / in flight": rows that were computed again, against the
rows that were in flight at the faults. "Broken": invariants that did not hold, or tests that failed.

{table(lines)}
"""
    if missing:
        text += f"\nNot there: {', '.join(missing)}.\n"
    (RESULTS / "reliability.md").write_text(text)
    print(text)
    return 0


if __name__ == "__main__":
    sys.exit(main())
