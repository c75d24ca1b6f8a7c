"""Ray's whole dashboard beside a cluster that was started without one, for as long as a test looks at its listings."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager

import httpx
import psutil
from runs import TOKEN
from service_process import Service, free_port

# What `ray list`, `ray summary` and the pages of the dashboard ask for.
STATE = (
    *("actors", "tasks", "objects", "workers", "runtime_envs", "jobs", "nodes", "placement_groups", "cluster_events"),
    *("actors/summarize", "tasks/summarize", "objects/summarize", "tasks/timeline", "cluster_metadata"),
)
LISTINGS = (
    *(f"/api/v0/{name}?detail=1&limit=10000" for name in STATE),
    *("/api/jobs/", "/logical/actors", "/nodes?view=summary", "/events", "/test/dump"),
    *("/api/component_activities", "/api/cluster_status", "/api/serve/applications/"),
)
_ROLES = ("--port=", "--modules-to-load=", "--disable-frontend", "--minimal")


@contextmanager
def dashboard(service: Service) -> Iterator[httpx.Client]:
    """A client of it that shows Ray's token."""
    (small,) = (one for one in service.tree() if any(word.endswith("dashboard/dashboard.py") for word in one.cmdline()))
    port = free_port()
    command = [word for word in small.cmdline() if not word.startswith(_ROLES)] + [f"--port={port}"]
    log = (service.folder / "dashboard.log").open("wb")
    process = subprocess.Popen(command, env=small.environ(), stdout=log, stderr=log)
    try:
        head = {"Authorization": f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"}
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", headers=head, timeout=60, trust_env=False) as client:
            _wait_for(client, process)
            yield client
    finally:
        family = psutil.Process(process.pid).children(recursive=True)
        for member in (*family, process):
            member.kill()
        process.wait()
        log.close()


def _wait_for(client: httpx.Client, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        assert process.poll() is None, "the dashboard has ended"
        try:
            if client.get("/api/v0/actors").status_code == 200:
                return
        except httpx.TransportError:
            pass
        time.sleep(0.3)
    raise TimeoutError("the dashboard does not answer")
