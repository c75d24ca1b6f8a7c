"""A Ray cluster of several nodes on this machine, each with a loopback address of its own, for faults: nodes are
killed, drained and added, and every process that belongs to it, or to what joined it, can be found and counted."""

from __future__ import annotations

import os
import secrets
import shutil
import subprocess
import sysconfig
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil
from runs import TOKEN
from service_process import free_port

START_S = 240.0
_SCRIPTS = Path(sysconfig.get_path("scripts"))
_MARK = "LSI_TEST_MARK"


class RayNode:
    """`ray start --block` of one node: its raylet and agents are children of `process`."""

    def __init__(self, address: str, process: subprocess.Popen[bytes], log: Path) -> None:
        self.address, self.process, self.log = address, process, log

    @property
    def raylet(self) -> psutil.Process | None:
        return next((one for one in self.family if "raylet/raylet" in _words(one)), None)

    @property
    def family(self) -> list[psutil.Process]:
        return _family(self.process)

    def kill(self) -> None:
        """The raylet alone, with -9: its workers notice and go; `ray start` ends with it."""
        if (raylet := self.raylet) is not None:
            raylet.kill()

    def end(self) -> None:
        family = self.family
        self.process.kill()
        self.process.wait()
        _kill(family)


class RayNodes:
    """A head without CPUs or GPUs, and nodes with one fake GPU and `cpus` CPUs each."""

    def __init__(self, nodes: int = 2, *, cpus: int = 3, gpus: int = 1, **env: str) -> None:
        self.mark = secrets.token_hex(8)
        # Not pytest's folder: sockets lie in it, and their paths may have 107 bytes at most.
        self.folder = Path(tempfile.mkdtemp(prefix="lsi-nodes-"))
        self.environment = {**os.environ, **TOKEN, **_SETTINGS, **env, _MARK: self.mark}
        self.environment["PATH"] = os.pathsep.join([str(_SCRIPTS), os.environ["PATH"]])
        self._port, self._client, self._dashboard = (str(free_port()) for _ in range(3))
        self.address = f"127.0.0.2:{self._port}"
        self._last = 2
        try:
            self.head = self.start_head()
        except AssertionError:  # on a busy machine Ray's own patience with its GCS, a minute, may be over
            _kill(self.members())
            self.head = self.start_head()
        self.nodes: list[RayNode] = []
        for _ in range(nodes):
            self.add(cpus=cpus, gpus=gpus)

    def start_head(self) -> RayNode:
        words = ["--head", "--port", self._port, "--ray-client-server-port", self._client, "--num-cpus", "0"]
        words += ["--dashboard-host", "127.0.0.1", "--dashboard-port", self._dashboard]
        return self._start("127.0.0.2", [*words, "--temp-dir", str(self.folder)], 1, 0)

    def add(self, *, cpus: int = 3, gpus: int = 1) -> RayNode:
        self._last += 1
        node = self._start(f"127.0.0.{self._last}", ["--address", self.address], cpus, gpus)
        self.nodes.append(node)
        return node

    def remove(self, node: RayNode) -> None:
        node.end()
        self.nodes.remove(node)

    @property
    def driver_environment(self) -> dict[str, str]:
        """What makes `lsi` join it; its processes are found, too."""
        return {**TOKEN, "RAY_ADDRESS": self.address, _MARK: self.mark}

    def raylets(self) -> list[psutil.Process]:
        """Of the nodes without the head."""
        return [raylet for node in self.nodes if (raylet := node.raylet) is not None]

    def kill_all(self) -> None:
        """The head and every node, as when the power is cut."""
        for node in [*self.nodes, self.head]:
            node.end()
        _kill(self.members())

    def start_again(self) -> None:
        """A new cluster under the same address."""
        count, self.nodes = len(self.nodes), []
        self.head = self.start_head()
        for _ in range(count):
            self.add()

    def members(self, name: str = "") -> list[psutil.Process]:
        """Every living process that was started for this cluster, orphans included, whose command line holds `name`."""
        return [one for one in psutil.process_iter() if name in _words(one) and self._is_marked(one)]

    def until_gone(self, *names: str, seconds: float = 60.0) -> None:
        """Until no process of these names is left."""
        deadline = time.monotonic() + seconds
        while left := [_words(one)[:100] for name in names for one in self.members(name)]:
            assert time.monotonic() < deadline, f"they stay: {left}"
            time.sleep(0.1)

    def end(self) -> None:
        self.kill_all()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self, ip: str, words: list[str], cpus: int, gpus: int) -> RayNode:
        command = [str(_SCRIPTS / "ray"), "start", *words, "--block", "--disable-usage-stats", "--node-ip-address", ip]
        command += [
            "--dashboard-agent-listen-port",
            str(free_port()),
            "--min-worker-port",
            "0",
            "--max-worker-port",
            "0",
        ]
        command += ["--object-store-memory", str(100 * 2**20), "--num-gpus", str(gpus)]
        if "--head" not in words:
            command += ["--num-cpus", str(cpus)]
        log = self.folder / f"{ip}-{secrets.token_hex(2)}.log"
        with log.open("wb") as file:
            process = subprocess.Popen(command, cwd=self.folder, env=self.environment, stdout=file, stderr=file)
        _wait_for(log, process)
        return RayNode(ip, process, log)

    def _is_marked(self, process: psutil.Process) -> bool:
        with suppress(psutil.Error, OSError):
            return process.environ().get(_MARK) == self.mark and process.status() != psutil.STATUS_ZOMBIE
        return False


# A killed node is noticed after 5 s instead of 15; on a busy machine a raylet takes more than its 30 s to start.
_SETTINGS = {
    "RAY_raylet_start_wait_time_s": "110",
    "RAY_worker_niceness": "0",
    "RAY_health_check_period_ms": "1000",
    "RAY_health_check_failure_threshold": "5",
}


def _wait_for(log: Path, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while "To terminate the Ray runtime" not in log.read_text():
        assert process.poll() is None, f"ray start has ended: {log.read_text()[-3000:]}"
        assert time.monotonic() < deadline, f"ray does not start: {log.read_text()[-3000:]}"
        time.sleep(0.1)


def _words(process: psutil.Process) -> str:
    with suppress(psutil.Error):
        return " ".join(process.cmdline())
    return ""


def _family(process: subprocess.Popen[bytes]) -> list[psutil.Process]:
    with suppress(psutil.NoSuchProcess):
        return psutil.Process(process.pid).children(recursive=True)
    return []


def _kill(processes: list[psutil.Process]) -> None:
    for process in processes:
        with suppress(psutil.NoSuchProcess):
            process.kill()
    psutil.wait_procs(processes, timeout=10)
