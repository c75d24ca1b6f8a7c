"""No capacity: a batch waits for a GPU that is not there, for as long as it takes, and runs when one comes."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView, write_config
from ray_nodes import RayNodes
from records import record
from runs import Lsi
from s3_server import S3Server
from served import Served

ROWS = numbered(100)
WAIT_S = 60
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def no_gpus() -> Iterator[RayNodes]:
    cluster = RayNodes(1, gpus=0)
    try:
        yield cluster
    finally:
        cluster.end()


def test_lsi_run_waits_for_a_gpu(lsi: Lsi, no_gpus: RayNodes) -> None:
    source = write_archive(lsi.folder / "in.tar", ROWS)
    command = ["run", source, "-o", lsi.folder / "out.tar", "--work-dir", lsi.folder / "work", "--json"]
    running = lsi.start(*command, "-c", write_config(lsi.folder), **no_gpus.driver_environment)
    running.until(lambda: no_gpus.members("Render"), "the stream")
    _waits(running.process.poll, LedgerView(lsi.folder / "work"))
    no_gpus.add()
    came = time.monotonic()
    finished = running.wait()
    assert finished.code == 0, finished.stderr
    again = check_complete(lsi.folder / "out.tar", ROWS).run_again
    assert again == 0
    note = f"to the end, after {WAIT_S} s without a GPU"
    record("`lsi run` without a GPU", len(ROWS), run_again=again, seconds=time.monotonic() - came, note=note)


def test_lsi_serve_says_that_it_waits_for_a_gpu(lsi: Lsi, s3_server: S3Server, no_gpus: RayNodes) -> None:
    served = Served(lsi, s3_server, no_gpus)
    write_archive(s3_server.path("waits-in.tar.gz"), ROWS)
    batch_id = served.submit("waits")
    _waits(lambda: None, LedgerView(served.work))
    view = served.view(batch_id)
    assert view is not None
    said = f"after {WAIT_S} s it is {view['status']} and {view['waiting']['message']}"
    assert view["request_counts"]["total"] == len(ROWS)
    assert view["waiting"]["message"] == "waits for GPUs: the cluster has none free"
    no_gpus.add()
    served.wait(batch_id, "completed")
    again = check_complete(s3_server.path("waits-out.tar.gz"), ROWS).run_again
    assert again == 0
    record("`lsi serve` without a GPU", len(ROWS), run_again=again, note=said)


def test_a_node_that_does_not_come_back(lsi: Lsi, nodes: RayNodes) -> None:
    """Ray keeps what was sent to its replica for the day that it comes back; the other one answers it."""
    rows = numbered(400, max_tokens=64)
    source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
    command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", write_config(lsi.folder)]
    ledger = LedgerView(work)
    running = lsi.start(*command, **nodes.driver_environment)
    running.until(lambda: ledger.counts().answered > 100 and len(nodes.members("Generate")) == 2, "two replicas")
    lost = next(node for node in nodes.nodes if not any("ReadLease" in " ".join(one.cmdline()) for one in node.family))
    before, begun = ledger.counts(), time.monotonic()
    nodes.remove(lost)
    finished = running.wait(400)
    assert finished.code == 0, finished.stderr
    found = check_complete(output, rows)
    record(
        "a node with a replica is gone for good",
        len(rows),
        run_again=found.run_again,
        in_flight=before.in_flight,
        seconds=time.monotonic() - begun,
        note="from the loss to the end",
    )
    assert not found.errors
    assert found.run_again <= before.in_flight


def _waits(ended: object, ledger: LedgerView) -> None:
    assert callable(ended)
    deadline = time.monotonic() + WAIT_S
    while time.monotonic() < deadline:
        assert ended() is None
        assert ledger.counts().begun == 0
        time.sleep(1)
