"""Where each process spends its CPU: every thread's CPU clock, read 100 times a second, charged to the stack it is in.

Started in every Python process of a run by a `sitecustomize` on PYTHONPATH (`install`), so nothing in the contender is
touched. A thread that only waits costs nothing, unlike in a profile by wall time. Time in native threads (Ray's gRPC,
torch's pools) is charged to the process as `native threads`. The sampling itself takes about 1 % of a busy process.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import threading
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from types import FrameType

FOLDER = "LSI_BENCH_STACKS"
_EVERY_S = 0.01
_WRITE_S = 1.0
_DEPTH = 60

Stack = tuple[str, ...]
"""`file:function` from the outermost frame to the innermost."""


def install(folder: Path) -> None:
    """Make `folder` a path entry whose `sitecustomize` starts the sampler in each Python process."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "sitecustomize.py").write_text("import measure.stacks\nmeasure.stacks.start()\n")


def start() -> None:
    if FOLDER not in os.environ:
        return
    _begin()
    os.register_at_fork(after_in_child=_begin)


def _begin() -> None:
    threading.Thread(target=_Sampler(Path(os.environ[FOLDER])).run, name="stacks", daemon=True).start()


class _Sampler:
    def __init__(self, folder: Path) -> None:
        self._path = folder / f"stacks-{os.getpid()}.jsonl"
        self._clocks: dict[int, float] = {}
        self._spent: dict[Stack, float] = defaultdict(float)
        self._names: dict[object, str] = {}

    def run(self) -> None:
        written, process = time.time(), _process_cpu()
        while True:
            time.sleep(_EVERY_S)
            self._sample()
            now = time.time()
            if now - written >= _WRITE_S:
                total = _process_cpu()
                self._write(written, now, total - process)
                written, process = now, total

    def _sample(self) -> None:
        me = threading.get_ident()
        for thread, frame in sys._current_frames().items():
            try:
                clock = time.clock_gettime(time.pthread_getcpuclockid(thread))
            except OSError:  # it has just ended
                continue
            spent = clock - self._clocks.get(thread, 0.0)
            self._clocks[thread] = clock
            if spent > 0:
                self._spent[("(sampler)",) if thread == me else self._stack(frame)] += spent

    def _stack(self, frame: FrameType | None) -> Stack:
        names: list[str] = []
        while frame is not None and len(names) < _DEPTH:
            code = frame.f_code
            name = self._names.get(code)
            if name is None:
                name = self._names[code] = f"{_short(code.co_filename)}:{code.co_qualname}"
            names.append(name)
            frame = frame.f_back
        return tuple(reversed(names))

    def _write(self, begin: float, end: float, process: float) -> None:
        stacks, self._spent = self._spent, defaultdict(float)
        stacks["(native threads)",] = max(0.0, process - sum(stacks.values()))
        title = Path("/proc/self/cmdline").read_bytes().replace(b"\0", b" ").decode(errors="replace").strip()
        title += " " + Path("/proc/self/comm").read_text().strip()
        entry = {"begin": begin, "end": end, "title": title, "stacks": [[*item] for item in stacks.items()]}
        with self._path.open("a") as file:
            file.write(json.dumps(entry) + "\n")


def _process_cpu() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def _short(path: str) -> str:
    _, _, inside = path.rpartition("site-packages/")
    _, _, library = path.rpartition("/lib/python3.11/")
    return inside or library or "/".join(path.split("/")[-3:])


def read_stacks(folder: Path, begin: float, end: float) -> Iterator[tuple[str, Stack, float]]:
    """(title of the process, stack, CPU seconds) between two times; a second at the edge counts by its share."""
    for path in folder.glob("stacks-*.jsonl"):
        entries = [json.loads(line) for line in path.read_text().splitlines(keepends=True) if line.endswith("\n")]
        for entry in entries:
            inside = min(end, entry["end"]) - max(begin, entry["begin"])
            share = inside / (entry["end"] - entry["begin"])
            if share > 0:
                for stack, spent in entry["stacks"]:
                    yield entries[-1]["title"], tuple(stack), spent * share
