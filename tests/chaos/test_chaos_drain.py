"""Ends that are announced: SIGTERM to a command with rows in flight, and a node that is to be taken away."""

from __future__ import annotations

import signal
import time
from collections.abc import Iterator

import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView, write_config
from ray_nodes import RayNodes
from records import record
from runs import Lsi

ROWS = 400
GRACE_S = 10.0
pytestmark = pytest.mark.timeout(900)


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    cluster = RayNodes(RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S=str(GRACE_S))
    try:
        yield cluster
    finally:
        cluster.end()


def test_sigterm(lsi: Lsi, nodes: RayNodes) -> None:
    rows = numbered(ROWS, max_tokens=64)
    source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
    command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", write_config(lsi.folder)]
    ledger = LedgerView(work)
    running = lsi.start(*command, **nodes.driver_environment)
    running.until(lambda: ledger.counts().answered > ROWS // 4, "a quarter")
    running.kill(signal.SIGTERM)
    told, at_stake = time.monotonic(), ledger.counts().in_flight
    ended = running.wait(60)
    seconds = time.monotonic() - told
    assert ended.code == 1, ended
    finished = lsi(*command, **nodes.driver_environment)
    assert finished.code == 0, finished.stderr
    again = check_complete(output, rows).run_again
    note = "from the signal to its end; the same command went on"
    record("SIGTERM to `lsi run`", ROWS, run_again=again, in_flight=at_stake, seconds=seconds, note=note)
    assert seconds < GRACE_S
    assert again <= at_stake


def test_a_node_with_a_notice_of_preemption(lsi: Lsi, nodes: RayNodes) -> None:
    rows = numbered(2 * ROWS, max_tokens=64)
    source, output, work = write_archive(lsi.folder / "in.tar", rows), lsi.folder / "out.tar", lsi.folder / "work"
    command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", write_config(lsi.folder)]
    ledger = LedgerView(work)
    running = lsi.start(*command, **nodes.driver_environment)
    running.until(lambda: ledger.counts().answered > ROWS // 2, "some rows")
    node = nodes.nodes[0]
    # What Kubernetes does, and `ray start` then: a notice to Ray with a deadline, and the end of the node after it.
    node.process.send_signal(signal.SIGTERM)
    noticed, told = ledger.counts(), time.monotonic()
    last = noticed
    while node.raylet is not None:
        last = ledger.counts()
        time.sleep(0.1)
    seconds = time.monotonic() - told
    nodes.remove(node)
    nodes.add()
    finished = running.wait()
    assert finished.code == 0, finished.stderr
    again = check_complete(output, rows).run_again
    note = f"from the notice to the node's end, in which {last.answered - noticed.answered} rows were answered"
    what = f"SIGTERM to a node: a notice of {GRACE_S:.0f} s"
    record(what, len(rows), run_again=again, in_flight=last.in_flight, seconds=seconds, note=note)
    assert again <= last.in_flight
