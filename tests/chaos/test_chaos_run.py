"""A storm of kill -9 over `lsi run` on three nodes and S3: the same command again is all that it ever takes."""

from __future__ import annotations

import random
from collections.abc import Iterator

import psutil
import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView, Storm, kill_all, report, write_config
from ray_nodes import RayNodes
from runs import Lsi, Running
from s3_server import S3Server
from served import STAGES, lose_node

ROWS = 2000
KILLS = 20
pytestmark = pytest.mark.timeout(4 * 3600)


def test_storms(lsi: Lsi, s3_server: S3Server, nodes: RayNodes, seeds: Iterator[int]) -> None:
    for seed in seeds:
        Scene(lsi, s3_server, nodes, seed).play()


class Scene:
    def __init__(self, lsi: Lsi, s3_server: S3Server, nodes: RayNodes, seed: int) -> None:
        self.lsi, self.nodes, self.s3 = lsi, nodes, s3_server
        self.seed, self.rng = seed, random.Random(seed)
        self.key = f"storm{seed}"
        self.rows = numbered(ROWS, max_tokens=64)
        write_archive(s3_server.path(f"{self.key}-in.tar.gz"), self.rows)
        self.work = lsi.folder / f"work-{self.key}"
        self.environment = nodes.driver_environment | {
            "IN": s3_server.presign("GET", f"{self.key}-in.tar.gz", 4 * 3600),
            "OUT": s3_server.presign("PUT", f"{self.key}-out.tar.gz", 4 * 3600),
        }
        config = write_config(lsi.folder)
        self.command = ["run", "env:IN", "-o", "env:OUT", "--work-dir", self.work, "--json", "-c", config]
        self.running: Running | None = None
        self.starts = 0

    def play(self) -> None:
        storm = Storm(self.rng, LedgerView(self.work), ROWS, self.victims(), self.hit)
        storm.rage(KILLS, self.going)
        finished = self.finish()
        storm.over()
        output = check_complete(self.s3.path(f"{self.key}-out.tar.gz"), self.rows)
        puts = self.s3.uploads(f"{self.key}-out.tar.gz")
        print(f"{self.starts} starts of the command")
        report("kill -9 of `lsi run`, its parts, and nodes", self.seed, storm, output, puts)
        assert finished["rows_run_again"] == output.run_again <= storm.at_stake
        assert not output.errors
        assert puts == 1
        self.nothing_stays()

    def victims(self) -> dict[str, object]:
        found = {name: lambda title=title: self.nodes.members(title) for name, title in STAGES.items()}
        return found | {
            "ledger": lambda: self.nodes.members("ray::LedgerActor"),
            "driver": lambda: [psutil.Process(self.running.pid)],
            "raylet": self.nodes.raylets,
        }

    def hit(self, name: str, processes: list[psutil.Process]) -> None:
        lose_node(self.nodes, processes[0]) if name == "raylet" else kill_all(processes)

    def going(self) -> bool:
        """True while the batch runs; starts the command again where a kill has ended it."""
        if self.running is not None and (code := self.running.process.poll()) is not None:
            if code == 0:
                return False
            print(f"        the command ended with {code}: {self.running.stderr[-300:].splitlines()[-1:]}", flush=True)
            self.running = None
        if self.running is None:
            self.starts += 1
            self.running = self.lsi.start(*self.command, **self.environment)
        return True

    def finish(self) -> dict[str, object]:
        for _ in range(4):
            self.going()
            assert self.running is not None
            finished = self.running.wait(300)
            if finished.code == 0:
                return finished.object
        raise AssertionError(finished.stderr)

    def nothing_stays(self) -> None:
        """Neither workers nor files."""
        self.nodes.until_gone(*STAGES.values(), "ray::LedgerActor", "-m lsi_ray")
        assert not list(self.work.glob("batches/*"))
