"""`lsi serve` on a cluster of nodes: batches in and out over S3, and the parts that can be killed."""

from __future__ import annotations

import json
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import psutil
from kills import kill_all, write_config
from ray_nodes import RayNodes
from runs import Lsi
from s3_server import S3Server
from service_process import free_port

STAGES = {"replica": "Generate", "render": "Render", "commit": "Commit", "source": "ray::ReadLease"}
SERVICE = {
    "driver": "ray::StreamDriver",
    "service": "ray::ServiceActor",
    "jobs": "ray::JobRunner",
    "api": "ray::ServeReplica",
    "proxy": "ray::ProxyActor",
    "controller": "ray::ServeController",
}
MODEL = "lsi/simulated"
ENDS = ("completed", "failed", "expired", "cancelled")
DEPLOY = {
    "models": [{"config": "storm.yaml", "idle_timeout_s": 5}],
    "admission": {"refuse": False},
    "api": {"url_schemes": "http", "url_private": True, "rates": {"lsi_writes": {"per_second": 100, "burst": 100}}},
}


class Served:
    def __init__(self, lsi: Lsi, s3: S3Server, nodes: RayNodes, *, work: Path | None = None, **engine: Any) -> None:
        self.nodes, self._s3, self._folder = nodes, s3, lsi.folder
        self.work = work or lsi.folder / "service"
        write_config(lsi.folder, **engine)
        (lsi.folder / "deploy.yaml").write_text(json.dumps(DEPLOY))
        self._environment = {**lsi.env, **nodes.driver_environment}
        self._port = free_port()
        self.token = self.serve().strip()

    def serve(self) -> str:
        """Start it, or go on after the cluster was lost; gives what it says on standard output."""
        words = ["-c", self._folder / "deploy.yaml", "--port", self._port, "--work-dir", self.work]
        return self._lsi("serve", *words)

    def stop(self) -> None:
        self._lsi("serve", "--stop")
        self.nodes.until_gone(*STAGES.values(), *(SERVICE[name] for name in ("driver", "service", "jobs", "api")))

    def submit(self, key: str, window: str = "4h") -> str:
        response = self.try_submit(key, window)
        assert response.status_code == 201, response.text
        return str(response.json()[0]["id"])

    def try_submit(self, key: str, window: str = "4h") -> httpx.Response:
        asked = {
            "input_file_uri": self._s3.presign("GET", f"{key}-in.tar.gz", 8 * 3600),
            "output_file_uri": self._s3.presign("PUT", f"{key}-out.tar.gz", 8 * 3600),
            "endpoint": "/v1/chat/completions",
            "model_id": MODEL,
            "completion_window": window,
            "store": "s3",
        }
        return self.call("POST", "/v1/inference/batches", json=asked)

    def call(self, method: str, path: str, **how: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.token}"}
        return httpx.request(method, f"http://127.0.0.1:{self._port}{path}", headers=headers, timeout=30, **how)

    def view(self, batch_id: str) -> dict[str, Any] | None:
        """None while the service does not answer. An acknowledged batch is never unknown."""
        try:
            response = self.call("GET", f"/v1/inference/batches/{batch_id}")
        except httpx.TransportError:
            return None
        assert response.status_code in (200, 429, 500, 502, 503, 504), response.text
        return response.json() if response.status_code == 200 else None

    def wait(self, batch_id: str, *statuses: str, seconds: float = 300) -> dict[str, Any]:
        deadline = time.monotonic() + seconds
        while (view := self.view(batch_id)) is None or view["status"] not in statuses:
            assert view is None or view["status"] not in ENDS, view
            assert time.monotonic() < deadline, f"{batch_id} is {view}"
            time.sleep(0.3)
        return view

    def victims(self) -> dict[str, Callable[[], list[psutil.Process]]]:
        titles = {**STAGES, **SERVICE}
        found = {name: lambda title=title: self.nodes.members(title) for name, title in titles.items()}
        return {**found, "raylet": self.nodes.raylets}

    def hit(self, name: str, processes: list[psutil.Process]) -> None:
        lose_node(self.nodes, processes[0]) if name == "raylet" else kill_all(processes)

    def _lsi(self, *words: object) -> str:
        command = [sys.executable, "-m", "lsi_ray", *map(str, words)]
        with (self._folder / "serve.err").open("ab") as err:
            done = subprocess.run(
                command, check=False, stdout=subprocess.PIPE, stderr=err, text=True, env=self._environment, timeout=180
            )
        assert done.returncode == 0, Path(err.name).read_text()[-3000:]
        return done.stdout


def lose_node(nodes: RayNodes, raylet: psutil.Process) -> None:
    """Kill its raylet; when the node is gone, another one comes."""
    (lost,) = [node for node in nodes.nodes if raylet in node.family]
    raylet.kill()
    nodes.remove(lost)
    nodes.add()
