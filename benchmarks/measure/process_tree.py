"""CPU time and memory of a process and all it started, sampled from outside and told apart by what each process does.

Twice a second; one sample of 25 processes takes about 5 ms, so the sampling itself is about 0.5 % of two cores.
"""

from __future__ import annotations

import re
import threading
import time
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import psutil

_EVERY_S = 0.5
# Title or command line -> what it is called in the table. The first that matches counts.
_LABELS = (
    (r"VLLM::Eng", "engine core"),  # the short name that the kernel keeps ends in "EngineCor"
    (r"VLLM::", "engine worker"),
    (r"Map(?:Worker|Batches)\((?:MapBatches\()?(\w+)", None),
    (r"ray::(?!IDLE)([\w.]+)", None),
    (r"raylet/raylet|raylet ", "raylet"),
    (r"gcs_server", "gcs"),
    (r"dashboard|runtime_env|log_monitor|monitor\.py|agent", "ray agents"),
    (r"ray::IDLE|default_worker", "ray idle"),
    (r"resource_tracker", "resource tracker"),
    (r"nvidia-smi", "nvidia-smi"),
)

_UNSURE = ("ray idle", "other")


@dataclass(slots=True)
class Seen:
    """One process: its label, and its CPU seconds at each time that it was looked at."""

    label: str
    times: list[float] = field(default_factory=list)
    cpu: list[float] = field(default_factory=list)
    peak: int = 0
    """Bytes of its own (resident, less what is shared) at most."""

    def spent(self, begin: float, end: float) -> float:
        """CPU seconds between two times, by interpolation."""
        return self._at(end) - self._at(begin)

    def _at(self, when: float) -> float:
        if when <= self.times[0]:
            # It had begun before the first look at it: what it had used by then counts as used at that look.
            return self.cpu[0] if when == self.times[0] else 0.0
        for index in range(1, len(self.times)):
            if when <= self.times[index]:
                share = (when - self.times[index - 1]) / (self.times[index] - self.times[index - 1])
                return self.cpu[index - 1] + share * (self.cpu[index] - self.cpu[index - 1])
        return self.cpu[-1]


class ProcessTree:
    """`with ProcessTree(pid) as tree: ...`; afterwards `tree.cpu(begin, end)` and `tree.peak_bytes`."""

    def __init__(self, pid: int) -> None:
        self._root = psutil.Process(pid)
        self._seen: dict[psutil.Process, Seen] = {}
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="process-tree", daemon=True)
        self._system: list[tuple[float, float]] = []
        self.peak_bytes = 0

    def __enter__(self) -> ProcessTree:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    def cpu(self, begin: float, end: float) -> dict[str, float]:
        """CPU seconds by kind of process between two times (time.time())."""
        spent: dict[str, float] = {}
        for seen in self._seen.values():
            spent[seen.label] = spent.get(seen.label, 0.0) + seen.spent(begin, end)
        return {label: value for label, value in sorted(spent.items(), key=lambda item: -item[1]) if value > 0.005}

    def peaks(self) -> dict[str, int]:
        """Bytes of its own that one process of each kind held at most."""
        peaks: dict[str, int] = {}
        for seen in self._seen.values():
            peaks[seen.label] = max(peaks.get(seen.label, 0), seen.peak)
        return peaks

    def others(self, begin: float, end: float) -> float:
        """CPU seconds that the rest of the machine used between two times: how quiet it was."""
        if not self._system:
            return 0.0
        system = Seen("", [at for at, _ in self._system], [busy for _, busy in self._system])
        return max(0.0, system.spent(max(begin, system.times[0]), end) - sum(self.cpu(begin, end).values()))

    def kill_rest(self) -> None:
        """End the contender and what it left behind, by handle, so that a reused pid is safe."""
        for process in [self._root, *self._seen]:
            with suppress(psutil.NoSuchProcess):
                process.kill()

    def _run(self) -> None:
        while not self._stop.wait(_EVERY_S):
            self._sample()

    def _sample(self) -> None:
        try:
            processes = [self._root, *self._root.children(recursive=True)]
        except psutil.NoSuchProcess:
            return
        times = psutil.cpu_times()
        self._system.append((time.time(), times.user + times.nice + times.system))
        private, shared = 0, 0
        for process in processes:
            try:
                memory = self._look(process)
            except psutil.Error:
                continue
            private += memory.rss - memory.shared
            shared = max(shared, memory.shared)
        # Pages that processes share (Ray's object store, above all) count once.
        self.peak_bytes = max(self.peak_bytes, private + shared)

    def _look(self, process: psutil.Process) -> Any:
        with process.oneshot():
            cpu, memory = process.cpu_times(), process.memory_info()
            seen = self._seen.get(process)
            if seen is None:
                seen = self._seen[process] = Seen(self._label(process))
            elif len(seen.times) % 4 == 0 or seen.label.startswith(_UNSURE):
                label = self._label(process)  # a worker's title changes with what it runs
                seen.label = seen.label if label.startswith(_UNSURE) else label
        seen.peak = max(seen.peak, memory.rss - memory.shared)
        seen.times.append(time.time())
        seen.cpu.append(cpu.user + cpu.system)
        return memory

    def _label(self, process: psutil.Process) -> str:
        if process == self._root:
            return "driver"
        return label_of(f"{' '.join(process.cmdline())} {process.name()}")


def label_of(command: str) -> str:
    """What a process does, by its title or command line."""
    for pattern, label in _LABELS:
        if match := re.search(pattern, command):
            return label or match[1]
    return f"other: {command[:60]}"
