"""`lsi run` as a child of a test: its processes can be found, killed, waited for within bounds, and are gone after."""

from __future__ import annotations

import ipaddress
import json
import os
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import psutil
import pytest

TIMEOUT_S = 120
GO_ON = "run the same command again to go on"

# In the environment: Ray would else write one to the home of whoever runs the tests.
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": secrets.token_hex(32)}

# Ray's own, which notice within a minute or two that their raylet was killed; everything else goes at once.
_LINGERING = ("ray::DashboardAgent", "ray::RuntimeEnvAgent", "ray-dashboard", "multiprocessing", "dashboard.py")


@dataclass(frozen=True)
class Finished:
    code: int
    stdout: str
    stderr: str
    seconds: float

    @property
    def object(self) -> Any:
        """Standard output as the one JSON object of `--json`."""
        return json.loads(self.stdout)


class Running:
    def __init__(self, arguments: list[str], folder: Path, env: dict[str, str]) -> None:
        self._began = time.monotonic()
        name = secrets.token_hex(4)
        self._stdout, self._stderr = folder / f"{name}.out", folder / f"{name}.err"
        with self._stdout.open("wb") as out, self._stderr.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "lsi_ray", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=err,
                env=env,
                start_new_session=True,
            )

    @property
    def pid(self) -> int:
        return self.process.pid

    @property
    def stderr(self) -> str:
        return self._stderr.read_text()

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Wait for a condition while the run runs."""
        deadline = time.monotonic() + TIMEOUT_S
        while not condition():
            assert self.process.poll() is None, f"it ended before {what}: {self.stderr}"
            assert time.monotonic() < deadline, f"{what} did not come: {self.stderr}"
            time.sleep(0.01)

    def until_says(self, text: str) -> None:
        """On standard error; after its end too, when another speaks for it."""
        deadline = time.monotonic() + 10
        while text not in self.stderr:
            assert time.monotonic() < deadline, f"{text!r} was not said: {self.stderr}"
            time.sleep(0.05)

    def wait(self, seconds: float = TIMEOUT_S) -> Finished:
        try:
            code = self.process.wait(seconds)
        except subprocess.TimeoutExpired:
            pytest.fail(f"it hangs: {self.stderr}")
        return Finished(code, self._stdout.read_text(), self.stderr, time.monotonic() - self._began)

    def until_gone(self, name: str) -> None:
        deadline = time.monotonic() + TIMEOUT_S
        while self.members(name):
            assert time.monotonic() < deadline, f"{name} stays: {self.members(name)}"
            time.sleep(0.05)

    def kill(self, number: int = signal.SIGKILL) -> None:
        os.kill(self.pid, number)

    def members(self, name: str = "") -> list[psutil.Process]:
        """Processes of the run, Ray's included, whose command line holds `name`."""
        return [process for process in psutil.process_iter() if self._is_member(process, name)]

    def wide_listeners(self) -> list[str]:
        """Sockets of the run that others than this machine could reach."""
        members = {process.pid for process in self.members()}
        return [
            f"{connection.pid} {connection.laddr}"
            for connection in psutil.net_connections("tcp")
            if connection.pid in members
            and connection.status == psutil.CONN_LISTEN
            and not _loopback(connection.laddr.ip)
        ]

    def _is_member(self, process: psutil.Process, name: str) -> bool:
        with suppress(psutil.Error, ProcessLookupError):
            return os.getsid(process.pid) == self.pid and name in " ".join(process.cmdline())
        return False

    def end(self) -> list[str]:
        """Kill what is left, and say what should not have been."""
        deadline = time.monotonic() + 60
        while (left := _named(self.members())) and self.process.poll() is not None and time.monotonic() < deadline:
            time.sleep(0.2)
        for process in self.members():
            with suppress(psutil.NoSuchProcess):
                process.kill()
        self.process.kill()
        self.process.wait()
        return left


def _loopback(ip: str) -> bool:
    return ipaddress.ip_address(ip.removeprefix("::ffff:")).is_loopback


def _named(processes: list[psutil.Process]) -> list[str]:
    found = []
    for process in processes:
        with suppress(psutil.Error):
            command = " ".join(process.cmdline())
            if process.status() != psutil.STATUS_ZOMBIE and not any(name in command for name in _LINGERING):
                found.append(f"{process.pid} {command[:120]}")
    return found


class Lsi:
    """Starts commands of lsi in a folder with a cache of its own; `env` is what the next ones see."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.cache = folder / "cache"
        self.env = {**os.environ, "LSI_CACHE": str(self.cache), **TOKEN}
        self._started: list[Running] = []

    def start(self, *arguments: object, **env: str) -> Running:
        running = Running([str(word) for word in arguments], self.folder, {**self.env, **env})
        self._started.append(running)
        return running

    def __call__(self, *arguments: object, **env: str) -> Finished:
        return self.start(*arguments, **env).wait()

    def config(self, **engine: Any) -> Path:
        """A config of the simulated engine, in JSON, which is YAML. Small shards: kills cost little."""
        path = self.folder / f"{secrets.token_hex(4)}.yaml"
        simulated = {"type": "simulated", "max_num_seqs": 32, **engine}
        path.write_text(json.dumps({"model": "lsi/simulated", "engine": simulated, "shard_rows": 16}))
        return path

    def end(self) -> None:
        left = [name for running in self._started for name in running.end()]
        assert not left, f"left behind: {left}"


@pytest.fixture
def lsi(tmp_path: Path) -> Iterator[Lsi]:
    commands = Lsi(tmp_path)
    yield commands
    commands.end()
