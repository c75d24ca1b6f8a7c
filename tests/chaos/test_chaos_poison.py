"""Poison rows through real Ray: each crashes its engine's process, three times at most, and its neighbours succeed."""

from __future__ import annotations

import random

import pytest
from archives import Json, chat, check_complete, numbered, write_archive
from kills import write_config
from ray_nodes import RayNodes
from records import record
from runs import Lsi

pytestmark = pytest.mark.timeout(3600)


@pytest.mark.parametrize(
    ("rows", "poison"), [(300, 1), (300, 3), (300, 30), (40, 40)], ids=["one", "hundredth", "tenth", "all"]
)
def test_poison(lsi: Lsi, nodes: RayNodes, request: pytest.FixtureRequest, rows: int, poison: int) -> None:
    given = request.config.getoption("--seed")
    seed = random.randrange(2**32) if given is None else given
    print(f"seed {seed}")
    bad = set(random.Random(seed).sample(range(rows), poison))
    requests = [_poisoned(row, number) if number in bad else row for number, row in enumerate(numbered(rows))]
    source, output = write_archive(lsi.folder / "in.tar", requests), lsi.folder / "out.tar"
    command = ["run", source, "-o", output, "--work-dir", lsi.folder / "work", "--json"]
    running = lsi.start(*command, "-c", write_config(lsi.folder, allow_scripts=True), **nodes.driver_environment)
    finished = running.wait(1800)
    assert finished.code == 0, finished.stderr
    found = check_complete(output, requests, failing=[f"r{number}" for number in bad])
    assert set(found.codes.values()) == {"engine_crashed"}
    crashes = _replicas_started(nodes) - 2
    what, note = f"{poison} of {rows} rows kill their engine's process", f"{crashes} crashes; {poison} error lines"
    record(what, rows, run_again=found.run_again, seed=seed, seconds=finished.seconds, note=note)
    assert crashes <= 3 * poison + 2  # Ray may have started replicas for other reasons


def _poisoned(row: Json, number: int) -> Json:
    return chat(row["custom_id"], f"question {number} [[lsi:crash]]")


def _replicas_started(nodes: RayNodes) -> int:
    """Each process writes the name of its actor into a log of its own."""
    logs = nodes.folder.glob("session_2*/logs/worker-*.out")
    return sum("MapBatches(Generate)" in log.read_text(errors="replace") for log in logs)
