"""The real vLLM on three nodes: its engine process, its replica and its node are killed in one run."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import psutil
import pytest
from archives import Json, chat, read_output, write_archive
from kills import LedgerView, Storm, kill_all, report
from ray_nodes import RayNodes
from runs import Lsi
from served import lose_node

ROWS = 600
MODEL = "lsi/tiny-vl"
ENGINE_S = 400  # on a busy machine an engine takes two minutes to start
pytestmark = pytest.mark.timeout(3600)


@pytest.fixture
def plain_nodes() -> Iterator[RayNodes]:
    cluster = RayNodes(2, gpus=0)
    try:
        yield cluster
    finally:
        cluster.end()


def test_engine_replica_and_node(lsi: Lsi, plain_nodes: RayNodes, request: pytest.FixtureRequest) -> None:
    given = request.config.getoption("--seed")
    seed = random.randrange(2**32) if given is None else given
    print(f"seed {seed}")
    rng = random.Random(seed)
    rows = [_row(number) for number in range(ROWS)]
    source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
    ledger = LedgerView(work)
    victims = {"engine": lambda: _engines(plain_nodes), "replica": lambda: plain_nodes.members("Generate")}

    def hit(name: str, processes: list[psutil.Process]) -> None:
        lose_node(plain_nodes, processes[0]) if name == "raylet" else kill_all(processes)

    victims["raylet"] = lambda: [_raylet_of(plain_nodes, _engines(plain_nodes)[0])]
    storm = Storm(rng, ledger, ROWS, victims, hit)
    running = lsi.start("run", source, "-o", output, "--work-dir", work, "--json", **plain_nodes.driver_environment)
    for name in rng.sample(sorted(victims), len(victims)):
        goal = ledger.counts().answered + ROWS // 6
        deadline = time.monotonic() + ENGINE_S
        while ledger.counts().answered < goal or not _engines(plain_nodes):
            assert running.process.poll() is None, running.stderr
            assert time.monotonic() < deadline, running.stderr
            time.sleep(0.2)
        time.sleep(rng.uniform(0, 2))
        storm.strike(name)
    finished = running.wait(2 * ENGINE_S)
    storm.over()
    assert finished.code == 0, finished.stderr
    found = read_output(output)
    report("kill -9 with the real vLLM", seed, storm, found, 1)
    assert [line["custom_id"] for line in found.lines] == [row["custom_id"] for row in rows]
    assert not found.errors
    assert found.run_again <= storm.at_stake
    plain_nodes.until_gone("Generate", "Render", "Commit", "EngineCore", "-m lsi_ray")


def _row(number: int) -> Json:
    row = chat(f"r{number}", f"Question {number}", max_tokens=160, model=MODEL)
    row["body"] |= {"ignore_eos": True, "temperature": 0}
    return row


def _engines(nodes: RayNodes) -> list[psutil.Process]:
    return nodes.members("EngineCore")


def _raylet_of(nodes: RayNodes, process: psutil.Process) -> psutil.Process:
    parents = {parent.pid for parent in process.parents()}
    (raylet,) = [raylet for raylet in nodes.raylets() if raylet.pid in parents]
    return raylet
