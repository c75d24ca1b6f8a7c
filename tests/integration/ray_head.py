"""A running Ray head of the tests' own, on loopback, with a folder and a token of its own."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import sys
import sysconfig
import tempfile
import time
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import psutil
import pytest
from runs import TOKEN

START_S = 120
# Else Ray listens on every address. For all of the cluster: the drivers, too, take their own address to be this one.
LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


@dataclass(frozen=True)
class RayHead:
    folder: Path
    address: str
    dashboard: str
    process: subprocess.Popen[bytes]

    @property
    def environment(self) -> dict[str, str]:
        """What makes `lsi run` join it."""
        return {**TOKEN, **LOOPBACK, "RAY_ADDRESS": self.address}

    def members(self, name: str) -> list[psutil.Process]:
        """Its processes, workers and drivers of jobs included, whose command line holds `name`."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with suppress(psutil.Error):
                found += [process] if name in " ".join(process.cmdline()) else []
        return found

    def files(self) -> list[Path]:
        """All that Ray wrote: logs, events, sockets aside."""
        return [path for path in self.folder.rglob("*") if path.is_file() and not path.is_symlink()]


@pytest.fixture(scope="session")
def ray_head() -> Iterator[RayHead]:
    # Not pytest's folder: sockets lie in it, and their paths may have 107 bytes at most.
    folder = Path(tempfile.mkdtemp(prefix="lsi-head-"))
    port, dashboard, agent, client = _free_ports(4)
    command = [str(Path(sysconfig.get_path("scripts")) / "ray"), "start", "--head", "--block", "--disable-usage-stats"]
    command += ["--node-ip-address", "127.0.0.1", "--port", port, "--ray-client-server-port", client]
    command += ["--dashboard-host", "127.0.0.1", "--dashboard-port", dashboard, "--dashboard-agent-listen-port", agent]
    command += ["--min-worker-port", "0", "--max-worker-port", "0", "--num-cpus", "2"]
    command += ["--object-store-memory", str(200 * 2**20), "--temp-dir", str(folder)]
    log = (folder / "head.log").open("wb")
    process = subprocess.Popen(
        command, cwd=folder, env=_environment(folder), stdout=log, stderr=log, start_new_session=True
    )
    try:
        _wait_for(int(dashboard), process, Path(log.name))
        yield RayHead(folder, f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}", process)
    finally:
        _end(process)
        log.close()
        shutil.rmtree(folder, ignore_errors=True)


def _environment(folder: Path) -> dict[str, str]:
    """Jobs find `lsi` and their cache by it."""
    scripts = str(Path(sys.executable).parent)
    path = os.pathsep.join([scripts, os.environ["PATH"]])
    ours = {"PATH": path, "LSI_CACHE": str(folder / "cache"), "RAY_worker_niceness": "0"}
    return {**os.environ, **TOKEN, **LOOPBACK, **ours}


def _free_ports(count: int) -> list[str]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [str(probe.getsockname()[1]) for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def _wait_for(port: int, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline = time.monotonic() + START_S
    while time.monotonic() < deadline:
        assert process.poll() is None, f"the head has ended: {log.read_text()}"
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    raise TimeoutError(f"the dashboard does not listen: {log.read_text()}")


def _end(process: subprocess.Popen[bytes]) -> None:
    """At once: `ray start --block` takes half a minute to end in good order."""
    family = psutil.Process(process.pid).children(recursive=True)
    process.kill()
    process.wait()
    for member in family:
        with suppress(psutil.NoSuchProcess):
            member.kill()
    psutil.wait_procs(family, timeout=10)
