"""A replica's process that stands still (SIGSTOP) is killed and its rows are answered; one that is only slow is not."""

from __future__ import annotations

import time

import psutil
import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView, write_config
from ray_nodes import RayNodes
from records import record
from runs import Lsi

from lsi_ray.stream.ports import SILENT_S

ROWS = 400
NOTICED_S = SILENT_S + 40.0
pytestmark = pytest.mark.timeout(900)


@pytest.mark.parametrize("replicas", [1, 2])
def test_a_stopped_replica(lsi: Lsi, replicas: int) -> None:
    cluster = RayNodes(replicas)
    try:
        rows = numbered(
            ROWS * (2 * replicas - 1), max_tokens=64
        )  # one alone must not be done before the other is there
        source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
        command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", write_config(lsi.folder)]
        ledger = LedgerView(work)
        running = lsi.start(*command, **cluster.driver_environment)
        running.until(lambda: ledger.counts().answered > 50 and len(_replicas(cluster)) == replicas, "all replicas")
        victim = _replicas(cluster)[0]
        victim.suspend()
        stopped, in_flight = time.monotonic(), ledger.counts().in_flight
        while victim.is_running() and victim.status() != psutil.STATUS_ZOMBIE:
            assert time.monotonic() - stopped < NOTICED_S, running.stderr
            time.sleep(0.2)
        noticed_s = time.monotonic() - stopped
        finished = running.wait(300)
        assert finished.code == 0, finished.stderr
        found = check_complete(output, rows)
        what, note = (
            f"SIGSTOP of 1 of {replicas} replicas",
            f"to the end; the process was killed after {noticed_s:.0f} s",
        )
        seconds = time.monotonic() - stopped
        record(what, len(rows), run_again=found.run_again, in_flight=in_flight, seconds=seconds, note=note)
        assert not found.errors
        assert found.run_again <= in_flight
        cluster.until_gone("Generate", "Render", "Commit", "ray::LedgerActor")
    finally:
        cluster.end()


def test_a_slow_replica_is_left_alone(lsi: Lsi) -> None:
    """Its rows take 100 s, and its process gets no processor at all for half of them."""
    cluster = RayNodes(1)
    try:
        rows = numbered(16, max_tokens=64)
        source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
        config = write_config(lsi.folder, tokens_per_second=0.64)
        command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", config]
        ledger = LedgerView(work)
        running = lsi.start(*command, **cluster.driver_environment)
        running.until(lambda: ledger.counts().in_flight == len(rows), "all rows in flight")
        (replica,) = _replicas(cluster)
        time.sleep(25)
        replica.suspend()
        time.sleep(50)
        replica.resume()
        finished = running.wait(300)
        assert finished.code == 0, finished.stderr
        found = check_complete(output, rows)
        assert not found.errors
        assert found.run_again == 0
        assert finished.seconds > 100
        what = "rows that take 100 s, and no processor for 50 s of them"
        record(what, len(rows), run_again=found.run_again, seconds=finished.seconds, note="no replica was replaced")
    finally:
        cluster.end()


def _replicas(cluster: RayNodes) -> list[psutil.Process]:
    return cluster.members("Generate")
