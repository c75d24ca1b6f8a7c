"""A storm of kill -9 over `lsi serve` on three nodes and S3: it heals by itself, without a command."""

from __future__ import annotations

import random
import time
from collections.abc import Iterator

import pytest
from archives import check_complete, numbered, write_archive
from kills import LedgerView, Storm, report
from ray_nodes import RayNodes
from runs import Lsi
from s3_server import S3Server
from served import ENDS, STAGES, Served

ROWS = 2000
KILLS = 20
pytestmark = pytest.mark.timeout(4 * 3600)


def test_storms(lsi: Lsi, s3_server: S3Server, nodes: RayNodes, seeds: Iterator[int]) -> None:
    served = Served(lsi, s3_server, nodes)
    for seed in seeds:
        storm_over(served, s3_server, seed)
    nodes.until_gone(*STAGES.values())  # its engines have nothing to do
    served.stop()


def storm_over(served: Served, s3: S3Server, seed: int) -> None:
    rows, key = numbered(ROWS, max_tokens=64), f"storm{seed}"
    write_archive(s3.path(f"{key}-in.tar.gz"), rows)
    storm = Storm(random.Random(seed), LedgerView(served.work), ROWS, served.victims(), served.hit)
    batch_id = served.submit(key)
    going = Going(served, batch_id)
    storm.rage(KILLS, going)
    served.wait(batch_id, "completed")
    storm.over()
    output = check_complete(s3.path(f"{key}-out.tar.gz"), rows)
    puts = s3.uploads(f"{key}-out.tar.gz")
    report("kill -9 of `lsi serve`, its parts, and nodes", seed, storm, output, puts)
    assert not output.errors
    assert output.run_again <= storm.at_stake
    assert puts == 1 or "jobs" in [kill.victim for kill in storm.kills[-2:]]
    assert not list(served.work.glob("batches/*"))


class Going:
    """Whether the batch runs, asked twice a second."""

    def __init__(self, served: Served, batch_id: str) -> None:
        self._served, self._batch_id = served, batch_id
        self._ask_at, self._answer = 0.0, True

    def __call__(self) -> bool:
        if time.monotonic() > self._ask_at:
            view = self._served.view(self._batch_id)
            self._answer = view is None or view["status"] not in ENDS
            self._ask_at = time.monotonic() + 0.5
        return self._answer
