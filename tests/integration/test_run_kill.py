"""kill -9 of every part of a run on the simulated engine: nothing is lost, nothing hangs, and it says how to go on."""

from __future__ import annotations

import os
import random
import shutil
import signal
import sqlite3
import time
from contextlib import closing
from pathlib import Path
from typing import Any

import psutil
import pytest
from archives import chat, check_complete, numbered, write_archive
from ray_head import RayHead
from runs import GO_ON, Lsi, Running

# 32 rows run at once for a second each; of rows so light 128 may be in the engine, and two shards of 16 on their way to
# the commit: what one kill of a worker may cost.
ROWS = 480
SLOW = {"tokens_per_second": 64.0}
IN_FLIGHT = 4 * 32 + 2 * 16

pytestmark = pytest.mark.timeout(600)


@pytest.fixture
def rng() -> random.Random:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    return random.Random(seed)


class Scene:
    """One batch, one work dir, one command."""

    def __init__(self, lsi: Lsi, rows: list[Any], **engine: Any) -> None:
        self.lsi, self.rows = lsi, rows
        self.source = write_archive(lsi.folder / "in.tar", rows)
        self.output, self.work = lsi.folder / "out.tar.gz", lsi.folder / "work"
        self.command = ["run", self.source, "-o", self.output, "--work-dir", self.work, "--json"]
        self.command += ["-c", lsi.config(**engine)]

    def start(self, **env: str) -> Running:
        return self.lsi.start(*self.command, **env)

    def segments(self) -> int:
        return len(list(self.work.glob("batches/*/segments/*.seg")))

    def in_flight(self) -> int:
        """Rows that have begun and are not answered; a driver that dies slowly may have handed them back."""
        with closing(sqlite3.connect(f"file:{self.work}/ledger.sqlite?mode=ro", uri=True)) as db:
            return int(db.execute("SELECT coalesce(sum(todo), 0) FROM shards WHERE begun > 0").fetchone()[0])

    def advance(self, running: Running, segments: int, pause_s: float) -> None:
        """Let it commit `segments` more, and go on for a moment that chance chose."""
        goal = self.segments() + segments
        running.until(lambda: self.segments() >= goal, f"segment {goal}")
        time.sleep(pause_s)


def kill(processes: list[psutil.Process]) -> None:
    assert processes, "the victim is not there"
    for process in processes:
        process.kill()


def test_what_ends_a_run_is_gone_on_from(lsi: Lsi, rng: random.Random, ray_head: RayHead) -> None:
    """The driver, the ledger's actor, Ray's raylet and its GCS, in any order, and the same command after each, the last
    time on another Ray."""
    scene = Scene(lsi, numbered(ROWS, max_tokens=64), **SLOW)
    at_stake = 0
    victims = {"driver": "", "ledger": "ray::LedgerActor", "raylet": "raylet/raylet", "gcs": "gcs/gcs_server"}
    for name in rng.sample(sorted(victims), len(victims)):
        # Ray waits 60 s for a GCS to come back.
        running = scene.start(RAY_gcs_rpc_server_reconnect_timeout_s="2")
        scene.advance(running, segments=2, pause_s=rng.uniform(0, 1))
        if name == "driver":
            running.kill()
        else:
            kill(running.members(victims[name]))
        ended = running.wait()
        assert ended.code == (-signal.SIGKILL if name == "driver" else 1), (name, ended)
        running.until_says(GO_ON)
        running.until_gone("ray::LedgerActor")
        in_flight = scene.in_flight()
        at_stake += in_flight
        print(f"{name} killed: code {ended.code}, {scene.segments()} segments, {in_flight} rows in flight")
    finished = scene.start(**ray_head.environment).wait()
    assert finished.code == 0, finished.stderr
    assert "going on" in finished.stderr
    output = check_complete(scene.output, scene.rows)
    print(f"{output.run_again} of {ROWS} rows were run twice, after {len(victims)} kills with {at_stake} in flight")
    assert finished.object["rows_run_again"] == output.run_again <= at_stake


def test_a_run_heals_when_its_workers_are_killed(lsi: Lsi, rng: random.Random, ray_head: RayHead) -> None:
    scene = Scene(lsi, numbered(ROWS, max_tokens=64), **SLOW)
    victims = ["Generate", "Render", "Commit", "ray::ReadLease"]
    running = scene.start(**ray_head.environment)
    for name in rng.sample(victims, len(victims)):
        scene.advance(running, segments=2, pause_s=rng.uniform(0, 0.5))
        kill(ray_head.members(name))
    finished = running.wait()
    assert finished.code == 0, finished.stderr
    output = check_complete(scene.output, scene.rows)
    print(f"{output.run_again} of {ROWS} rows were run twice, after {len(victims)} kills")
    assert finished.object["rows_run_again"] == output.run_again <= IN_FLIGHT * len(victims)


def test_poison_rows_end_alone(lsi: Lsi, ray_head: RayHead) -> None:
    """One ends the replica's process as the kernel does when memory runs out, one kills its engine: each becomes an
    error line, the others are answered."""
    rows = numbered(96)
    for number, mark in ((20, "[[lsi:oom]]"), (70, "[[lsi:dead]]")):
        rows[number] = chat(f"r{number}", f"question {number} {mark}")
    scene = Scene(lsi, rows, allow_scripts=True)
    finished = scene.start(**ray_head.environment).wait()
    assert finished.code == 0, finished.stderr
    output = check_complete(scene.output, rows, failing=["r20", "r70"])
    assert set(output.codes.values()) == {"engine_crashed"}
    assert finished.object["errors"][0]["rows"] == 2


def test_signals_stop_a_run_and_another_command_is_refused(lsi: Lsi, ray_head: RayHead) -> None:
    scene = Scene(lsi, numbered(ROWS // 2, max_tokens=64), **SLOW)
    for number in (signal.SIGINT, signal.SIGTERM):
        running = scene.start()
        scene.advance(running, segments=1, pause_s=0)
        assert running.wide_listeners() == []
        running.kill(number)
        stopped = running.wait(30)
        assert (stopped.code, stopped.stdout) == (1, ""), stopped
        assert f"stopped. What is finished is safe in {scene.work}" in stopped.stderr
        assert GO_ON in stopped.stderr
        assert "Traceback" not in stopped.stderr
    _refuse_other_commands(scene)
    finished = scene.start(**ray_head.environment).wait()
    assert finished.code == 0, finished.stderr
    output = check_complete(scene.output, scene.rows)
    print(f"{output.run_again} of {len(scene.rows)} rows were run twice, after 2 signals")
    assert output.run_again <= 2 * IN_FLIGHT


def _refuse_other_commands(scene: Scene) -> None:
    """Each would mix two batches in one work dir."""
    other = [*scene.command]
    other[other.index(scene.output)] = scene.output.with_name("other.tar.gz")
    refused = scene.lsi(*other)
    assert refused.code == 2
    assert "another output" in refused.object["error"]["message"]

    before, data = scene.source.stat(), scene.source.read_bytes()
    scene.source.write_bytes(data.replace(b"question 7", b"question 8", 1))
    refused = scene.lsi(*scene.command)
    assert (refused.code, refused.object["error"]["code"]) == (2, "input_changed")
    assert str(scene.source) in refused.object["error"]["message"]
    scene.source.write_bytes(data)
    os.utime(scene.source, ns=(before.st_atime_ns, before.st_mtime_ns))


def test_killed_while_it_cleans_up(lsi: Lsi) -> None:
    """Delivered and erased, but not yet forgotten: the same command begins a fresh batch. Without Ray: no good row."""
    rows = 5_000  # it must last long enough to be watched
    source = write_archive(lsi.folder / "in.tar", [chat(f"a{row}", "x", "none.png") for row in range(rows)])
    command = ["run", source, "-o", lsi.folder / "out.tar.gz", "--work-dir", lsi.folder / "work", "--json"]
    command += ["-c", lsi.config()]
    saved = lsi.folder / "run.json"
    running = lsi.start(*command)
    running.until(lambda: _copied(lsi.folder / "work" / "run.json", saved), "the identity")
    assert running.wait().code == 0
    shutil.copy(saved, lsi.folder / "work" / "run.json")
    again = lsi(*command)
    assert (again.code, again.object["counts"]["failed"]) == (0, rows), again.stderr


def _copied(path: Path, target: Path) -> bool:
    try:
        target.write_bytes(path.read_bytes())
    except FileNotFoundError:
        return False
    return True
