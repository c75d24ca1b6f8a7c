"""Does the service keep its promises under faults? Simulated lives by seed, exits at every step, and planted bugs.

    python benchmarks/reliability.py --seeds 10000 --minutes 10

1. Lives: the real ledger, supervisor, desk, jobs, stages and outbox under a fake clock, disk, network and engines, with
   faults by seed; an invariant that breaks prints its seed and the command that replays it (tests/simulation).
2. Exits: two batches' lives, ended at each step on the disk by a kill and by a power cut, before and after it.
3. Planted bugs: how many seeds it takes to find each one.

The figures are also written to benchmarks/results/reliability-simulation.json, for reliability_table.py.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict, dataclass, field
from multiprocessing import Pool
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path.insert(0, str(ROOT / "tests" / "simulation"))

from crash_points import WAYS, kinds, point, points  # noqa: E402
from sim_bugs import BUGS  # noqa: E402
from simulate import Outcome, simulate  # noqa: E402

RESULTS = ROOT / "benchmarks" / "results" / "reliability-simulation.json"
BLOCK = 20
SAY_S = 15.0


@dataclass(slots=True)
class Lives:
    """Sums over many lives. `broken`: what their reports say."""

    lives: int = 0
    acts: int = 0
    disk_steps: int = 0
    batches: int = 0
    seconds: float = 0.0
    happened: Counter[str] = field(default_factory=Counter)
    broken: list[str] = field(default_factory=list)

    def add(self, outcome: Outcome) -> None:
        self.lives += 1
        self.acts += outcome.acts
        self.disk_steps += outcome.disk_steps
        self.batches += outcome.batches
        self.happened += outcome.happened
        if outcome.broken:
            self.broken.append(outcome.report())

    def merge(self, other: Lives) -> None:
        for name in ("lives", "acts", "disk_steps", "batches"):
            setattr(self, name, getattr(self, name) + getattr(other, name))
        self.happened += other.happened
        self.broken += other.broken
        for report in other.broken:
            print(f"\n{report}\n", flush=True)


def block_of_seeds(first: int) -> Lives:
    lives = Lives()
    for seed in range(first, first + BLOCK):
        lives.add(simulate(seed))
    return lives


def block_of_exits(block: list[tuple[int, bool, bool, bool]]) -> Lives:
    lives = Lives()
    for step, in_url, power, after in block:
        lives.add(point(step, power=power, after=after, in_url=in_url))
    return lives


def seeds_needed(name: str) -> tuple[str, int | None, str]:
    """For one planted bug: its name, the seeds it took (None: more than 1,000), and what was found."""
    for seed in range(1000):
        if broken := simulate(seed, bug=BUGS[name]()).broken:
            return name, seed + 1, broken
    return name, None, ""


def run(pool: Any, what: str, work: Any, blocks: Iterator[Any], total: int, minutes: float) -> Lives:
    """All blocks, or those that go into the time."""
    lives, begun, said = Lives(), time.monotonic(), time.monotonic()
    for part in pool.imap_unordered(work, blocks):
        lives.merge(part)
        lives.seconds = time.monotonic() - begun
        if time.monotonic() - said >= SAY_S:
            said = time.monotonic()
            print(
                f"{what}: {lives.lives:,} of {total:,} in {lives.seconds:.0f} s, {len(lives.broken)} broken", flush=True
            )
        if lives.seconds > minutes * 60:
            print(f"{what}: the time is over")
            break
    return lives


def exits() -> list[tuple[int, bool, bool, bool]]:
    return [(step, in_url, power, after) for step, in_url in points() for power, after in WAYS]


def table(seeds: Lives, crashes: Lives, planted: list[tuple[str, int | None, str]]) -> list[tuple[str, str]]:
    """(what, figure) rows of the results."""
    rows = [
        ("simulated lives (seeds)", f"{seeds.lives:,} in {seeds.seconds / 60:.1f} min, {len(seeds.broken)} broken"),
        (
            "per life",
            f"{seeds.acts / max(seeds.lives, 1):.0f} acts, {seeds.disk_steps / max(seeds.lives, 1):.0f} disk steps",
        ),
        ("batches", f"{seeds.batches:,}"),
        *((f"fault: {name}", f"{number:,}") for name, number in seeds.happened.most_common()),
        (
            "exits at a step on the disk",
            f"{crashes.happened['exits']:,} in {crashes.seconds / 60:.1f} min, {len(crashes.broken)} broken",
        ),
        *((f"step: {name}", f"{number:,}") for name, number in kinds().most_common()),
        *((f"planted: {name}", f"{count} seeds" if count else "not found") for name, count, _ in planted),
    ]
    return [(str(what), figure) for what, figure in rows]


def commit() -> str:
    return subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True
    ).stdout.strip()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seeds", type=int, default=10_000)
    parser.add_argument("--first", type=int, default=0, help="the first seed")
    parser.add_argument("--minutes", type=float, default=10.0, help="for the seeds, and again for the exits")
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--only", choices=("lives", "exits", "planted"))
    given = parser.parse_args()
    wanted = {given.only} if given.only else {"lives", "exits", "planted"}
    seeds, crashes, planted = Lives(), Lives(), []
    with Pool(given.processes) as pool:
        if "lives" in wanted:
            firsts = iter(range(given.first, given.first + given.seeds, BLOCK))
            seeds = run(pool, "lives", block_of_seeds, firsts, given.seeds, given.minutes)
            pool.terminate()
    with Pool(given.processes) as pool:
        if "exits" in wanted:
            all_exits = exits()
            blocks = (all_exits[at : at + BLOCK] for at in range(0, len(all_exits), BLOCK))
            crashes = run(pool, "exits", block_of_exits, blocks, len(all_exits), given.minutes)
        if "planted" in wanted:
            planted = list(pool.imap_unordered(seeds_needed, sorted(BUGS)))
    rows = table(seeds, crashes, sorted(planted))
    print("\n| what | figure |\n|---|---|\n" + "\n".join(f"| {what} | {figure} |" for what, figure in rows))
    if given.only is None:
        record = {
            "date": time.strftime("%Y-%m-%d"),
            "commit": commit(),
            "lives": _plain(seeds),
            "exits": _plain(crashes),
            "steps": dict(kinds().most_common()),
            "planted": {name: count for name, count, _ in sorted(planted)},
        }
        RESULTS.write_text(json.dumps(record, indent=2) + "\n")
        print(f"\nwritten to {RESULTS.relative_to(ROOT)}")
    return 1 if seeds.broken or crashes.broken or any(count is None for _, count, _ in planted) else 0


def _plain(lives: Lives) -> dict[str, Any]:
    record = asdict(lives)
    return record | {"happened": dict(lives.happened.most_common()), "broken": len(lives.broken)}


if __name__ == "__main__":
    sys.exit(main())
