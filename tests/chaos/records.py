"""What a chaos test has measured, for the table of results: one JSON object a line in the file LSI_CHAOS_RESULTS names.

The same file gets a line per test with its outcome (conftest.py); benchmarks/reliability_table.py reads both.
"""

from __future__ import annotations

import json
import os
import subprocess
import time
from functools import cache
from pathlib import Path


def record(
    done: str,
    rows: int,
    *,
    run_again: int,
    in_flight: int | None = None,
    seed: int | None = None,
    kills: dict[str, int] | None = None,
    puts: int | None = None,
    seconds: float | None = None,
    note: str = "",
) -> None:
    """`done`: to how many `rows`. `run_again`: of them, against those `in_flight` at the faults. `puts`: of the output.
    `seconds`: what `note` says it took."""
    figures = {"done": done, "rows": rows, "run_again": run_again, "in_flight": in_flight, "seed": seed}
    keep(
        {**figures, "kills": kills, "puts": puts, "seconds": None if seconds is None else round(seconds), "note": note}
    )


def keep(figures: dict[str, object]) -> None:
    test = os.environ.get("PYTEST_CURRENT_TEST", "").split(" ")[0]
    line = json.dumps({"test": test, "date": time.strftime("%Y-%m-%d"), "commit": commit(), **figures})
    print(line, flush=True)
    if path := os.environ.get("LSI_CHAOS_RESULTS"):
        with open(path, "a") as file:
            file.write(line + "\n")


@cache
def commit() -> str:
    words = ["git", "rev-parse", "--short", "HEAD"]
    return subprocess.run(words, cwd=Path(__file__).parent, capture_output=True, text=True, check=False).stdout.strip()
