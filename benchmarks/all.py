"""Run what fits into the minutes given, in the order of its worth; then the table and the pictures (`make bench`).

    python benchmarks/all.py [--minutes 30] [--results DIR] [--only archive,T1] [--dry]
    python benchmarks/all.py --minutes 120 --gpu         full-size models with dummy weights, on a GPU host

The peers get another repeat of their cases as long as it fits; three is what medians want. Nothing begins after the
end, and what runs then has 7 minutes more. Whatever fails, the rest runs; the exit code is 1 if a script failed, missed
a bar, or did not get its turn.
"""

from __future__ import annotations

import argparse
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from measure.result import RESULTS

HERE = Path(__file__).parent
_LATE_S = 420.0  # past the end, what still runs is ended
_END_S = 60.0


@dataclass(frozen=True, slots=True)
class Step:
    name: str
    words: tuple[str, ...]
    minutes: float
    """On a quiet machine; of peers, for one repeat of all contenders."""
    wishes: tuple[int, ...] = (0,)
    """How urgent its first, second, ... repeat is; a smaller number comes first."""
    takes_repeats: bool = False


def peers(workload: str, rows: int, minutes: float, wishes: Sequence[int], *more: str, model: str = "tiny") -> Step:
    words = ("peers.py", "-w", workload, "-n", str(rows), "--model", model, *more)
    return Step(f"{workload} {Path(model).stem}", words, minutes, tuple(wishes), takes_repeats=True)


# A run of a contender on 2 cores takes 25 to 45 s before its first row, and 5 to 25 s after it.
CPU = (
    peers("T1", 1000, 3.0, (1, 4, 5)),
    peers("T1", 120, 4.0, (2, 6, 8), model="small"),
    peers("T2", 800, 3.5, (1, 7, 9), "--groups", "512"),
    peers("I1", 300, 3.5, (2, 7, 9)),
    Step("two_batches", ("two_batches.py",), 3.0),
    Step("start", ("start.py", "--repeat", "2"), 4.0),
    Step("control_plane", ("control_plane.py", "--replicas", "1,32"), 6.0),
    Step("archive", ("archive.py",), 1.5),
    peers("T4", 300, 3.0, (3, 7, 10)),
    peers("I3", 400, 3.5, (3, 8, 10)),
    peers("V1", 60, 3.5, (3, 9, 10)),
    peers("M1", 200, 3.5, (4, 9, 11)),
    Step("memory", ("memory.py",), 2.0, (5,)),
    peers("T2", 800, 3.5, (6, 9, 11), "--groups", "64"),
    peers("T3", 200, 4.0, (7, 11, 11)),
)
_7B, _32B, _8B = (f"configs/{name}.yaml" for name in ("qwen2.5-vl-7b", "qwen2.5-vl-32b-141gb", "qwen3-8b"))
GPU = (
    peers("T1", 4000, 10.0, (1, 4, 5), "--dummy", model=_8B),
    peers("I1", 2000, 10.0, (1, 4, 5), "--dummy", model=_7B),
    peers("V1", 400, 10.0, (2, 5, 6), "--dummy", model=_7B),
    peers("T2", 8000, 10.0, (2, 5, 6), "--dummy", "--groups", "512", model=_8B),
    peers("I3", 4000, 10.0, (3, 6, 7), "--dummy", model=_7B),
    peers("T4", 1000, 12.0, (3, 6, 7), "--dummy", model=_8B),
    peers("M1", 2000, 10.0, (4, 6, 7), "--dummy", model=_7B),
    peers("I1", 1000, 15.0, (5, 7, 8), "--dummy", model=_32B),
    Step("start", ("start.py", "--model", _8B, "--dummy", "--repeat", "2"), 10.0),
)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=30.0)
    parser.add_argument("--results", type=Path, default=RESULTS)
    parser.add_argument("--only", help="names of steps, or their beginnings, by commas")
    parser.add_argument("--gpu", action="store_true")
    parser.add_argument("--dry", action="store_true", help="only say what would run")
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    until = time.monotonic() + 60 * options.minutes
    wanted = [step for step in (GPU if options.gpu else CPU) if _is_wanted(step, options.only)]
    failed = []
    for step, repeats in fitting(wanted, options.minutes):
        words = [
            *step.words,
            *(["--repeat", str(repeats)] if step.takes_repeats else []),
            "--results",
            str(options.results),
        ]
        print(f"== {step.name}: {' '.join(words)}, about {step.minutes * max(repeats, 1):.0f} min", flush=True)
        if not options.dry and not (time.monotonic() < until and run(words, until + _LATE_S)):
            failed.append(step.name)
    if not options.dry:
        failed += [name for name in ("plots.py", "results.py") if not run([name, str(options.results)], until + 600)]
    if failed:
        raise SystemExit(f"failed, missed a bar or had no turn: {', '.join(failed)}")


def _is_wanted(step: Step, only: str | None) -> bool:
    return only is None or any(step.name.startswith(name) for name in only.split(","))


def fitting(steps: Sequence[Step], minutes: float) -> list[tuple[Step, int]]:
    """Steps with their repeats, chosen by urgency as long as they fit, in the order of `steps`."""
    left, chosen = minutes, dict.fromkeys(steps, 0)
    wishes = sorted(((wish, step) for step in steps for wish in step.wishes), key=lambda pair: pair[0])
    for _, step in wishes:
        if step.minutes <= left:
            left -= step.minutes
            chosen[step] += 1
    return [(step, repeats) for step, repeats in chosen.items() if repeats]


def run(words: Sequence[str], until: float) -> bool:
    """A script in a process of its own, ended with what it started when it is far too late."""
    process = subprocess.Popen([sys.executable, str(HERE / words[0]), *words[1:]])
    try:
        return process.wait(max(until - time.monotonic(), 1.0)) == 0
    except subprocess.TimeoutExpired:
        process.terminate()
        return False
    finally:
        if process.poll() is None:
            process.terminate()
            process.wait(_END_S)


if __name__ == "__main__":
    main()
