"""Poison rows through real Ray: each costs three engines at most, whatever it does to them; its neighbours succeed."""

from __future__ import annotations

import random
from collections import Counter

import pytest
from archives import chat, check_complete, numbered, write_archive
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
    dice = random.Random(seed)
    kinds = ["crash", "oom", "dead", "hang"] if poison < 10 else ["crash", "oom", "dead"]  # a hang takes its time
    bad = {number: dice.choice(kinds) for number in dice.sample(range(rows), poison)}
    requests = numbered(rows)
    for number, kind in bad.items():
        requests[number] = chat(f"r{number}", f"question {number} [[lsi:{kind}]]")
    source, output = write_archive(lsi.folder / "in.tar", requests), lsi.folder / "out.tar"
    command = ["run", source, "-o", output, "--work-dir", lsi.folder / "work", "--json"]
    config = write_config(lsi.folder, allow_scripts=True, hang_timeout_s=10)
    running = lsi.start(*command, "-c", config, **nodes.driver_environment)
    finished = running.wait(1800)
    assert finished.code == 0, finished.stderr
    found = check_complete(output, requests, failing=[f"r{number}" for number in bad])
    codes = {"hang": "engine_timeout"}
    assert found.codes == {f"r{number}": codes.get(kind, "engine_crashed") for number, kind in bad.items()}
    crashes = _replicas_started(nodes) - 2
    told = ", ".join(f"{kind} {count}" for kind, count in sorted(Counter(bad.values()).items()))
    what = f"{poison} of {rows} rows are poison"
    note = f"{told}: {poison} error lines, {crashes} processes lost"
    record(what, rows, run_again=found.run_again, seed=seed, seconds=finished.seconds, note=note)
    assert crashes <= 3 * poison + 2  # Ray may have started replicas for other reasons


def _replicas_started(nodes: RayNodes) -> int:
    """Each process writes the name of its actor into a log of its own."""
    logs = nodes.folder.glob("session_2*/logs/worker-*.out")
    return sum("MapBatches(Generate)" in log.read_text(errors="replace") for log in logs)
