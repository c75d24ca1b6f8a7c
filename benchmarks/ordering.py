"""What the order of rows is worth: the plan of `lsi run` through models of engine, cache and stream. No engine, no Ray.

    python benchmarks/ordering.py                  all of it (about a minute); the table, and results/ordering.json
    python benchmarks/ordering.py T2 --groups 512 --rows 800 --replicas 1

Three orders beside each other: `file`, that of the input, in even shards; `grouped`, by system prompt, media and text,
in even shards (what lsi did before plans had weights); `plan`, what it does now. `best` is what no order can beat: the
hits with every group back to back in one place, the time of the longest answer or of all work over all seats.
"""

from __future__ import annotations

import argparse
import json
import re
from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import workloads
from rich.console import Console
from rich.table import Table
from simulated.engine import TOKENS_PER_UNIT, Engine, Work
from simulated.stream import Bounds, Replica, decoded, run
from workloads import Row, Scale, Workload

from lsi_ray.archive.cuts import shard_stops, smallest_shard
from lsi_ray.archive.order import Keys, Shape, grouped, joints, running_order

RESULTS = Path(__file__).parent / "results" / "ordering.json"
STEP_TOKENS = 4096
_PIXELS = re.compile(r"(\d+)x(\d+)\.jpg$")

Order = Callable[[Keys, list[Row], Shape], tuple[list[int], list[int]]]


@dataclass(frozen=True, slots=True)
class Case:
    workload: str
    rows: int
    groups: int = 64
    replicas: int = 1
    seats: int = 64
    render_workers: int = 2


CASES = (
    Case("T2", 800, groups=64),
    Case("T2", 800, groups=512),
    Case("T2", 4000, groups=64, replicas=4),
    Case("T2", 4000, groups=512, replicas=4),
    Case("T3", 600),
    Case("T4", 300),
    Case("T4", 3000),
    Case("T4", 3000, replicas=8, seats=32),
    Case("I3", 1000),
    Case("I3", 1000, replicas=4, render_workers=8),
)


def file_order(_keys: Keys, rows: list[Row], shape: Shape) -> tuple[list[int], list[int]]:
    return list(range(len(rows))), _even(rows, shape)


def grouped_order(keys: Keys, rows: list[Row], shape: Shape) -> tuple[list[int], list[int]]:
    return grouped(keys).tolist(), _even(rows, shape)


def plan_order(keys: Keys, rows: list[Row], shape: Shape) -> tuple[list[int], list[int]]:
    prefill, decode = (np.array(tokens, np.int64) for tokens in zip(*map(_tokens, rows), strict=True))
    order = running_order(keys, prefill, decode, shape)
    rendered = np.array([sum(_bytes(name) for name in row.media) for row in rows], np.uint32)
    return order.tolist(), list(shard_stops(joints(keys[:, order]), rendered[order], shape))


ORDERS: dict[str, Order] = {"file": file_order, "grouped": grouped_order, "plan": plan_order}


def _even(rows: list[Row], shape: Shape) -> list[int]:
    size = 16 if any(row.media for row in rows) else shape.shard_rows
    return [*range(size, len(rows), size), len(rows)]


def keys_of(rows: list[Row]) -> Keys:
    """As plan.py's: system prompt, media, text, and the request itself."""
    text = [hash(("text", number)) for number in range(len(rows))]
    system = [hash(("group", row.group)) for row in rows]
    media = [hash(row.media) if row.media else text[number] for number, row in enumerate(rows)]
    return np.array([system, media, text, text], np.int64).astype(np.uint64)


def _tokens(row: Row) -> tuple[int, int]:
    media = sum(_bytes(name) for name in row.media) // (28 * 28 * 3)
    return row.shared + media + row.prompt, row.output


def _bytes(name: str) -> int:
    found = _PIXELS.search(name)
    return int(found[1]) * int(found[2]) * 3 if found else 0


def works(rows: list[Row]) -> list[Work]:
    made = []
    for number, row in enumerate(rows):
        prefix = [(f"group {row.group}", row.shared)] if row.group is not None else []
        prefix += [(name, _bytes(name) // (28 * 28 * 3)) for name in row.media]
        made.append(Work(number, tuple(prefix), _tokens(row)[0], row.output))
    return made


def measure(case: Case, name: str) -> dict[str, Any]:
    workload = Workload(case.workload, case.rows, Scale("cpu", 4096), "m", 0.75, case.groups)
    rows = workloads.plan(workload)
    shape = Shape(replicas=case.replicas, seats=case.seats)
    order, stops = ORDERS[name](keys_of(rows), rows, shape)
    made = works(rows)
    shards = [[made[number] for number in order[a:b]] for a, b in pairwise((0, *stops))]
    for number, shard in enumerate(shards):
        for work in shard:
            work.shard = number
    cache = workloads.cache_tokens(workload, case.seats) or case.seats * 4096
    replicas = [
        Replica(Engine(case.seats, STEP_TOKENS, cache), _bounds(name, case, shape)) for _ in range(case.replicas)
    ]
    finished = run(shards, replicas, _outstanding(name, case, shape))
    engines = [replica.engine for replica in replicas]
    media = [[[(file, _bytes(file) // 3 * 4) for file in rows[w.number].media] for w in shard] for shard in shards]
    return {
        "hit_rate": sum(e.cached_tokens for e in engines) / sum(e.prompt_tokens for e in engines),
        "time": finished[-1],
        "tail": 1 - finished[int(0.95 * len(finished)) - 1] / finished[-1],
        "starved": sum(e.starved for e in engines) / (finished[-1] * case.replicas),
        "decoded": decoded(media, case.render_workers, 256 * 2**20),
        "shards": len(shards),
    }


def _bounds(name: str, case: Case, shape: Shape) -> Bounds:
    if name == "plan":
        return Bounds(4 * case.seats // smallest_shard(shape.shard_rows), 4 * case.seats)
    even = 16 if case.workload == "I3" else shape.shard_rows
    return Bounds(max(2, -(-2 * case.seats // even)))


def _outstanding(name: str, case: Case, shape: Shape) -> int:
    """As stream/build.py has it and, but for `plan`, had it."""
    rows = 16 if name != "plan" and case.workload == "I3" else shape.shard_rows
    in_flight = max(2, -(-2 * case.seats // rows))
    return rows * (case.replicas * (in_flight + 2) + 2 * case.render_workers + 2)


def best(case: Case) -> dict[str, Any]:
    rows = workloads.plan(Workload(case.workload, case.rows, Scale("cpu", 4096), "m", 0.75, case.groups))
    total = sum(_tokens(row)[0] for row in rows)
    seen: set[Any] = set()
    hits = 0
    for work in works(rows):
        for part, tokens in work.prefix:
            hits += tokens // 16 * 16 if part in seen else 0
            seen.add(part)
    answers = [row.output for row in rows]
    compute = (total - hits + sum(answers)) / TOKENS_PER_UNIT
    time = max(max(answers), sum(answers) / (case.seats * case.replicas), compute / case.replicas)
    return {"hit_rate": hits / total, "time": time, "decoded": len({name for row in rows for name in row.media})}


def show(results: list[dict[str, Any]], console: Console) -> None:
    table = Table("case", "order", "hit rate", "time", "tail", "seats empty", "files decoded", "shards")
    for result in results:
        case, bound = result["case"], result["best"]
        name = f"{case['workload']} {case['rows']} rows"
        name += f", {case['groups']} groups" if case["workload"] == "T2" else ""
        name += f", {case['replicas']} x {case['seats']} seats"
        for order, got in result["orders"].items():
            table.add_row(
                name,
                order,
                f"{got['hit_rate']:.1%}",
                f"{got['time']:,.0f}",
                f"{got['tail']:.1%}",
                f"{got['starved']:.1%}",
                str(got["decoded"]),
                str(got["shards"]),
            )
            name = ""
        table.add_row(
            "", "best", f"{bound['hit_rate']:.1%}", f"{bound['time']:,.0f}", "", "", str(bound["decoded"]), ""
        )
        table.add_section()
    console.print(table)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workload", nargs="?", choices=("T1", "T2", "T3", "T4", "I3"), help="default: all cases")
    parser.add_argument("--rows", type=int, default=1000)
    parser.add_argument("--groups", type=int, default=64)
    parser.add_argument("--replicas", type=int, default=1)
    parser.add_argument("--seats", type=int, default=64)
    arguments = parser.parse_args()
    one = arguments.workload
    cases = (Case(one, arguments.rows, arguments.groups, arguments.replicas, arguments.seats),) if one else CASES
    results = [
        {"case": asdict(case), "orders": {name: measure(case, name) for name in ORDERS}, "best": best(case)}
        for case in cases
    ]
    if not one:
        RESULTS.write_text(json.dumps(results, indent=1) + "\n")
    show(results, Console(width=None if Console().is_terminal else 140))


if __name__ == "__main__":
    main()
