"""A node of a cluster is lost in the middle of a batch, and no row is. The long form: tests/chaos."""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest
from archives import check_complete, numbered, write_archive
from ray_nodes import RayNodes
from runs import Lsi

ROWS = numbered(400, max_tokens=64)
pytestmark = pytest.mark.timeout(400)


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    cluster = RayNodes(2)
    try:
        yield cluster
    finally:
        cluster.end()


def test_a_lost_node_costs_what_was_in_flight(lsi: Lsi, nodes: RayNodes) -> None:
    engine = {"type": "simulated", "max_num_seqs": 32, "tokens_per_second": 64.0, "gpus": 1}
    config = {
        "model": "lsi/simulated",
        "engine": engine,
        "shard_rows": 16,
        "replicas": {"max": 2},
        "render": {"max": 2},
    }
    (lsi.folder / "two.yaml").write_text(json.dumps(config))
    source, output, work = write_archive(lsi.folder / "in.tar", ROWS), lsi.folder / "out.tar", lsi.folder / "work"
    command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", lsi.folder / "two.yaml"]
    running = lsi.start(*command, **nodes.driver_environment)
    running.until(lambda: len(list(work.glob("batches/*/segments/*.seg"))) >= 4, "four segments")
    lost = next(node for node in nodes.nodes if any("Generate" in " ".join(one.cmdline()) for one in node.family))
    in_flight = _in_flight(work)
    lost.kill()
    nodes.add()
    finished = running.wait()
    assert finished.code == 0, finished.stderr
    found = check_complete(output, ROWS)
    print(f"{found.run_again} of {len(ROWS)} rows were run twice; {in_flight} were in flight when the node was lost")
    # Its death is noticed seconds later: what runs elsewhere by then is in flight, too.
    assert found.run_again <= 2 * 4 * 32
    nodes.until_gone("Generate", "Render", "Commit", "ray::LedgerActor")


def _in_flight(work: Path) -> int:
    with closing(sqlite3.connect(f"file:{work}/ledger.sqlite?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT coalesce(sum(todo), 0) FROM shards WHERE state = 2").fetchone()[0])
