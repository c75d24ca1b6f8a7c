"""How many rows a second go through all stages when the engine costs nothing? Do N replicas do N times the work of one?

    python benchmarks/control_plane.py [--rows 200000] [--replicas 1,8,32]

`lsi run` on the simulated engine, in fresh processes. Three questions, three bars:
1. Ceiling: answers at once; small rows of text. 4,000 rows/s on 2 cores, with the CPU time by process.
2. Memory: what driver and ledger hold with all rows more than with 1,000 of them: under 100 MB.
3. Linear: replicas of 25 rows/s each (16 at once, 0.64 s each); N of them do N times what one does, within 5 %.
Rates are of rows that are durable, between two commits of the steady part. Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import yaml
from contenders.task import Answers, Task
from measure import host
from measure.process_tree import ProcessTree
from measure.result import RESULTS, Line, conclude

from lsi_ray.archive.tar_writer import TarWriter

_BAR_ROWS_S, _BAR_BYTES, _BAR_LINEAR = 4000, 100e6, 0.05
_FEW = 1000
_SHARDS = (64, 512)
_MODEL = "lsi/simulated"
_SEATS, _RATE, _TOKENS = 16, 25, 16
_LINEAR_S = 60  # each replica's rows take so long; the steady part is from the half on, when all have started
_SETTINGS = {"PYTHONPATH": os.pathsep.join(map(str, (Path(__file__).parent, Path(__file__).parents[1])))}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=200_000)
    parser.add_argument("--replicas", default="1,8,32", help="of question 3, by commas")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-control-") as name:
        few, *ceilings = ceiling(options.rows, Path(name))
        scaled = [linear(int(count), Path(name)) for count in options.replicas.split(",")]
    lines = [*judge_ceiling(ceilings), *judge_memory(few, ceilings[-1]), *judge_linear(scaled)]
    detail = {"few": few, "ceilings": ceilings, "linear": scaled}
    raise SystemExit(0 if conclude("control_plane", lines, detail, described, options.results) else 1)


def ceiling(rows: int, folder: Path) -> list[dict[str, Any]]:
    """Few rows; then a fifth of `rows` in shards as by default, and all in large ones."""
    engine = {"type": "simulated", "max_num_seqs": 1024}
    few, some, all_rows = (write_archive(folder / f"{count}.tar", count) for count in (_FEW, rows // 5, rows))
    return [
        run(few, {"engine": engine, "shard_rows": _SHARDS[1]}, folder),
        run(some, {"engine": engine, "shard_rows": _SHARDS[0]}, folder),
        run(all_rows, {"engine": engine, "shard_rows": _SHARDS[1]}, folder),
    ]


def linear(replicas: int, folder: Path) -> dict[str, Any]:
    engine = {"type": "simulated", "max_num_seqs": _SEATS, "tokens_per_second": _TOKENS * _RATE / _SEATS}
    archive = write_archive(folder / f"linear-{replicas}.tar", replicas * _RATE * _LINEAR_S)
    pool = {"min": replicas, "max": replicas}
    return run(archive, {"engine": engine, "replicas": pool}, folder, steady=(0.5, 0.92)) | {"replicas": replicas}


def write_archive(path: Path, rows: int) -> Path:
    def line(number: int) -> bytes:
        messages = [{"role": "user", "content": f"Row {number}: say in one word what this is about."}]
        body = {"model": _MODEL, "max_tokens": _TOKENS, "messages": messages}
        return json.dumps(
            {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}
        ).encode()

    with path.open("wb") as file:
        tar = TarWriter(file)
        tar.add_bytes("jobs.jsonl", b"\n".join(map(line, range(rows))) + b"\n")
        tar.close()
    return path


def run(
    archive: Path, config: dict[str, Any], folder: Path, *, steady: tuple[float, float] = (0.1, 0.9)
) -> dict[str, Any]:
    """`lsi run`; `steady`: between which shares of the rows its rate is taken."""
    with tempfile.TemporaryDirectory(dir=folder) as name:
        out = Path(name)
        (out / "config.yaml").write_text(yaml.safe_dump({"model": _MODEL, **config}))
        task = Task(str(archive), "", "", 0, str(out / "config.yaml"), name)
        begun = time.time()
        with (out / "log.txt").open("wb") as log:
            process = subprocess.Popen(
                [sys.executable, "-m", "contenders.lsi", str(task.save())],
                stdout=log,
                stderr=subprocess.STDOUT,
                env={**os.environ, **_SETTINGS},
            )
            with ProcessTree(process.pid) as tree:
                try:
                    code = process.wait()
                finally:
                    tree.kill_rest()
        if code:
            raise SystemExit((out / "log.txt").read_text()[-2000:])
        answers = json.loads((out / "answers.json").read_text())
    return {**config, **_figures(answers, tree, steady), "wall_s": time.time() - begun}


def _figures(answers: Answers, tree: ProcessTree, steady: tuple[float, float]) -> dict[str, Any]:
    times = np.array([at for at, _ in answers])
    rows = np.cumsum([count for _, count in answers])
    first, last = np.searchsorted(rows, [share * rows[-1] for share in steady])
    begin, end, done = float(times[first]), float(times[last]), int(rows[last] - rows[first])
    cpu = tree.cpu(begin, end) if end > begin else {}
    return {
        "rows": int(rows[-1]),
        "rows_per_s": done / (end - begin) if end > begin else 0.0,
        "cpu_s_per_1000": {label: 1000 * spent / done for label, spent in cpu.items()} if done else {},
        "others_cpu_share": tree.others(begin, end) / (end - begin) if end > begin else 0.0,
        "peaks": tree.peaks(),
    }


def judge_ceiling(ceilings: list[dict[str, Any]]) -> list[Line]:
    best = max(one["rows_per_s"] for one in ceilings)
    lines = []
    for one in ceilings:
        rate = one["rows_per_s"]
        judged = rate >= _BAR_ROWS_S if rate == best else None
        bar = f"{_BAR_ROWS_S:,} rows/s" if rate == best else ""
        spent = sum(one["cpu_s_per_1000"].values())
        parts = ", ".join(f"{label} {part:.2f}" for label, part in list(one["cpu_s_per_1000"].items())[:6])
        told = f"{rate:,.0f} rows/s; {spent:.2f} CPU s per 1,000 rows: {parts}"
        lines.append(Line(f"simulated engine, all stages, shards of {one['shard_rows']} rows", told, bar, judged))
    return lines


def judge_memory(few: dict[str, Any], many: dict[str, Any]) -> list[Line]:
    lines = []
    for label in ("driver", "Ledger"):
        a, b = (next((peak for name, peak in one["peaks"].items() if label in name), 0) for one in (few, many))
        told = f"{(b - a) / 1e6:.0f} MB ({a / 1e6:.0f} to {b / 1e6:.0f} MB)"
        what = f"memory of the {label.lower()}, {few['rows']:,} to {many['rows']:,} rows"
        lines.append(Line(what, told, "under 100 MB more", b - a < _BAR_BYTES))
    return lines


def judge_linear(scaled: list[dict[str, Any]]) -> list[Line]:
    alone = scaled[0]["rows_per_s"] / scaled[0]["replicas"]
    lines = []
    for one in scaled:
        share = one["rows_per_s"] / (one["replicas"] * alone)
        told = f"{one['rows_per_s']:.1f} rows/s, {share:.3f} of {one['replicas']} times one"
        judged = share >= 1 - _BAR_LINEAR if one is not scaled[0] else None
        bar = "within 5 %" if one is not scaled[0] else ""
        lines.append(Line(f"{one['replicas']} simulated replicas of {_RATE} rows/s each", told, bar, judged))
    return lines


if __name__ == "__main__":
    main()
