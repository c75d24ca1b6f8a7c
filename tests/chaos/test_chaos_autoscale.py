"""A cluster that grows from nothing and shrinks again, by Ray's own autoscaler over fake nodes of one GPU each."""

from __future__ import annotations

import csv
import os
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml
from archives import check_complete, numbered, write_archive
from ray_nodes import RayNode, RayNodes
from records import record
from runs import Lsi
from s3_server import S3Server
from served import DEPLOY, Served

IDLE_S = 12.0
ROWS = 3000
MOST = 3
pytestmark = pytest.mark.timeout(1200)
CLUSTER: dict[str, Any] = {
    "cluster_name": "fake",
    "max_workers": 6,
    "upscaling_speed": 10.0,
    "idle_timeout_minutes": IDLE_S / 60,
    "provider": {
        "type": "fake_multinode",
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    },
    "head_node_type": "ray.head.default",
    "available_node_types": {
        "ray.head.default": {"resources": {"CPU": 1}, "node_config": {}, "max_workers": 0},
        "gpu": {"resources": {"CPU": 3, "GPU": 1}, "node_config": {}, "min_workers": 0, "max_workers": MOST},
        "render": {"resources": {"CPU": 2}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    },
    "auth": {},
    "docker": {},
    "file_mounts": {},
    "cluster_synced_files": [],
    "file_mounts_sync_continuously": False,
    "rsync_exclude": [],
    "rsync_filter": [],
    "initialization_commands": [],
    "setup_commands": [],
    "head_setup_commands": [],
    "worker_setup_commands": [],
    "head_start_ray_commands": [],
    "worker_start_ray_commands": [],
}


class GrowingNodes(RayNodes):
    """A head whose autoscaler starts and ends raylets on this machine."""

    def __init__(self) -> None:
        super().__init__(0, RAY_FAKE_CLUSTER="1", AUTOSCALER_UPDATE_INTERVAL_S="1")

    def start_head(self) -> RayNode:
        provider = {**CLUSTER["provider"], "gcs_address": self.address}
        (self.folder / "cluster.yaml").write_text(yaml.safe_dump({**CLUSTER, "provider": provider}))
        return super().start_head()

    def _start(self, ip: str, words: list[str], cpus: int, gpus: int) -> RayNode:
        return super()._start(ip, [*words, "--autoscaling-config", str(self.folder / "cluster.yaml")], cpus, gpus)


@pytest.fixture
def growing() -> Iterator[GrowingNodes]:
    cluster = GrowingNodes()
    try:
        yield cluster
    finally:
        cluster.end()


class Watch:
    """Once a second: nodes beside the head, engine processes, rows not answered. Written as a CSV and, where matplotlib
    is, a plot, to LSI_CHAOS_PLOTS (default: the test's folder)."""

    def __init__(self, nodes: RayNodes, served: Served) -> None:
        self.samples: list[tuple[float, int, int, int]] = []
        self.batch_id = ""
        self._nodes, self._served, self._over = nodes, served, threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def nodes(self) -> int:
        return len(self._nodes.members("raylet/raylet")) - 1

    def most(self, column: int) -> int:
        return int(max(sample[column] for sample in self.samples))

    def end(self, folder: Path) -> None:
        self._over.set()
        self._thread.join()
        with (folder / "autoscale.csv").open("w", newline="") as file:
            csv.writer(file).writerows([("seconds", "nodes", "engines", "rows_left"), *self.samples])
        with suppress(ImportError):
            plot(self.samples, folder / "autoscale.png")

    def _run(self) -> None:
        begun = time.monotonic()
        while not self._over.wait(1.0):
            with suppress(httpx.HTTPError, AssertionError):
                view = self._served.view(self.batch_id) if self.batch_id else None
                counts = view["request_counts"] if view else {"total": 0, "completed": 0, "failed": 0}
                left = counts["total"] - counts["completed"] - counts["failed"]
                engines = len(self._nodes.members("ray::MapWorker(MapBatches(Generate"))
                self.samples.append((time.monotonic() - begun, self.nodes(), engines, left))


def plot(samples: list[tuple[float, int, int, int]], path: Path) -> None:
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    seconds, nodes, engines, left = zip(*samples, strict=True)
    figure, (above, below) = pyplot.subplots(2, 1, sharex=True, figsize=(8, 5))
    above.step(seconds, nodes, label="nodes beside the head", where="post")
    above.step(seconds, engines, label="engine processes", where="post")
    above.legend()
    below.plot(seconds, left)
    below.set(xlabel="seconds", ylabel="rows not answered")
    figure.savefig(path, dpi=120)
    pyplot.close(figure)


def test_gpus_come_with_work_and_its_deadline_and_go_with_it(
    lsi: Lsi, s3_server: S3Server, growing: GrowingNodes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One replica does 4 rows/s: with one alone the batch would be late, which shows when that speed was measured."""
    monkeypatch.setitem(DEPLOY, "gpus", {"node_start_s": 10, "most": MOST})
    models = [{"config": "storm.yaml", "idle_timeout_s": 5, "replicas": {"min": 1, "max": MOST}}]
    monkeypatch.setitem(DEPLOY, "models", models)
    served = Served(lsi, s3_server, growing, tokens_per_second=16.0)
    rows = numbered(ROWS, max_tokens=64)
    write_archive(s3_server.path("grow-in.tar.gz"), rows)
    watch = Watch(growing, served)
    assert watch.nodes() == 0
    watch.batch_id = served.submit("grow", window="8m")
    try:
        served.wait(watch.batch_id, "completed", seconds=540)
        done = time.monotonic()
        while watch.nodes():
            assert time.monotonic() < done + 180, "nodes stay"
            time.sleep(1)
    finally:
        watch.end(Path(os.environ.get("LSI_CHAOS_PLOTS", lsi.folder)))
    again = check_complete(s3_server.path("grow-out.tar.gz"), rows).run_again
    assert again == 0
    assert watch.most(2) == MOST
    note = f"{watch.most(1)} nodes and {MOST} engines at most, and none {time.monotonic() - done:.0f} s after the end"
    record("a cluster grows from no node and shrinks to none", ROWS, run_again=again, note=note)
