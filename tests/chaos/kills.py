"""A storm of kills over a batch that runs: what was killed when, and what it cost, by the ledger's own counts."""

from __future__ import annotations

import json
import random
import sqlite3
import threading
import time
from collections import Counter
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
from archives import Output
from records import record

_SAMPLE_S = 0.05


@dataclass(frozen=True)
class Counts:
    """Of all batches: rows answered, rows begun (each time), begun again, and begun and not answered right now."""

    answered: int
    begun: int
    again: int
    in_flight: int


class LedgerView:
    """Reads the ledger's file beside its owner."""

    def __init__(self, work: Path) -> None:
        self._path = work / "ledger.sqlite"

    def counts(self) -> Counts:
        query = (
            "SELECT coalesce(sum(completed + failed), 0), coalesce(sum(rows_begun), 0), coalesce(sum(rows_rerun), 0),"
            " (SELECT coalesce(sum(todo), 0) FROM shards WHERE state = 2) FROM counts"
        )
        try:
            with closing(sqlite3.connect(f"file:{self._path}?mode=ro", uri=True, timeout=10)) as db:
                return Counts(*db.execute(query).fetchone())
        except sqlite3.OperationalError as error:
            if "unable to open" in str(error) or "no such table" in str(error):  # it is not there yet
                return Counts(0, 0, 0, 0)
            raise


@dataclass
class Kill:
    victim: str
    after_s: float
    in_flight: int
    """At the kill."""
    answered: int
    most_in_flight: int = 0
    """From the kill to the next one: a node's death is noticed seconds later."""
    again: int = 0
    """Rows run a second time between this kill and the next."""


class Storm:
    """`victims` by name: how to find the processes to kill. `hit` may do more than kill (a node is replaced)."""

    def __init__(
        self,
        rng: random.Random,
        ledger: LedgerView,
        rows: int,
        victims: dict[str, Callable[[], list[psutil.Process]]],
        hit: Callable[[str, list[psutil.Process]], None] | None = None,
    ) -> None:
        self._rng, self._ledger, self._rows, self._victims = rng, ledger, rows, victims
        self._hit = hit or (lambda _, processes: kill_all(processes))
        self._began = time.monotonic()
        self._base = ledger.counts()
        self._over = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)
        self.kills: list[Kill] = []

    def rage(self, kills: int, running: Callable[[], bool]) -> None:
        """Kill `kills` times at moments that chance chooses, spread over the batch; ends early with the batch."""
        self._watcher.start()
        for number in range(kills):
            # Over the first nine tenths, or nothing would be left to kill; a quarter of them also while it recovers.
            goal = self._rows * 0.9 * (number + self._rng.random()) / kills
            patience = time.monotonic() + (self._rng.uniform(2, 20) if self._rng.random() < 0.25 else 120)
            while running() and self._counts().answered < goal and time.monotonic() < patience:
                time.sleep(_SAMPLE_S)
            time.sleep(self._rng.uniform(0, 0.5))
            if not running():
                break
            self._strike()

    def over(self) -> None:
        """The batch has ended: count what the last kill cost."""
        self._over.set()
        if self._watcher.is_alive():
            self._watcher.join()

    def strike(self, victim: str) -> None:
        self._strike(victim)

    def _strike(self, victim: str | None = None) -> None:
        names = [victim] if victim else self._rng.sample(sorted(self._victims), len(self._victims))
        for name in names:
            processes = self._victims[name]()
            if processes:
                one = [self._rng.choice(processes)]
                counts = self._counts()
                at = time.monotonic() - self._began
                self.kills.append(Kill(name, at, counts.in_flight, counts.answered, counts.in_flight))
                self._hit(name, one)
                print(
                    f"{at:6.1f} s: {name} killed, {counts.answered} answered, {counts.in_flight} in flight", flush=True
                )
                return

    def _watch(self) -> None:
        before = 0
        while not self._over.wait(_SAMPLE_S):
            counts = self._counts()
            if self.kills:
                kill = self.kills[-1]
                kill.most_in_flight = max(kill.most_in_flight, counts.in_flight)
                kill.again += max(0, counts.again - before)
            before = max(before, counts.again)

    def _counts(self) -> Counts:
        """Of this storm's batch: what was there before does not count."""
        now, base = self._ledger.counts(), self._base
        return Counts(now.answered - base.answered, now.begun - base.begun, now.again - base.again, now.in_flight)

    @property
    def seconds(self) -> float:
        return time.monotonic() - self._began

    @property
    def in_flight(self) -> int:
        return sum(kill.in_flight for kill in self.kills)

    @property
    def at_stake(self) -> int:
        return sum(kill.most_in_flight for kill in self.kills)

    def table(self) -> str:
        lines = [
            f"{kill.after_s:7.1f}  {kill.victim:12}  {kill.answered:8}  {kill.in_flight:9}"
            f"  {kill.most_in_flight:15}  {kill.again:9}"
            for kill in self.kills
        ]
        return "\n".join(["   when  victim        answered  in flight  most until next  run again", *lines])


def kill_all(processes: list[psutil.Process]) -> None:
    for process in processes:
        try:
            process.kill()
        except psutil.NoSuchProcess:
            continue


def report(what: str, seed: int, storm: Storm, output: Output, puts: int) -> None:
    print(storm.table())
    kills = Counter(kill.victim for kill in storm.kills)
    record(
        what,
        len(output.lines) + len(output.errors),
        run_again=output.run_again,
        in_flight=storm.at_stake,
        seed=seed,
        kills=dict(sorted(kills.items())),
        puts=puts,
        seconds=storm.seconds,
        note="from the first start to the delivery",
    )


def write_config(folder: Path, **engine: Any) -> Path:
    """Two replicas, on a fake GPU each, that take a second for a row of 64 tokens and run 16 at once."""
    simulated = {"type": "simulated", "max_num_seqs": 16, "tokens_per_second": 64.0, "gpus": 1, **engine}
    config = {"model": "lsi/simulated", "engine": simulated, "shard_rows": 16}
    path = folder / "storm.yaml"
    path.write_text(json.dumps({**config, "render": {"max": 1}, "replicas": {"min": 1, "max": 2}}))
    return path
