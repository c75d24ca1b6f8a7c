"""A clock inside vLLM, the same in every contender: when each row entered the engine, when it left, and its tokens.

Loaded by vLLM itself as a plugin (`install` writes the entry points to a folder that goes on PYTHONPATH), so no
contender's code is touched. One record of 32 bytes goes to a file as a row ends, at about 2 microseconds a row: the
processes are killed at the end more often than they exit.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import multiprocessing
import os
import sys
import time
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

FOLDER = "LSI_BENCH_PROBE"
RECORD = np.dtype(
    [("begin", "<f8"), ("end", "<f8"), ("prompt", "<u4"), ("output", "<u4"), ("cached", "<i4"), ("", "<u4")]
)
_MODULE = "vllm.v1.engine.async_llm"
_STATS_S = 0.25


def install(folder: Path, *, scheduler: bool) -> None:
    """Make `folder` a path entry that holds the plugin. `scheduler`: vLLM's own statistics too, at some cost."""
    info = folder / "lsi_bench_probe-1.dist-info"
    info.mkdir(parents=True, exist_ok=True)
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: lsi-bench-probe\nVersion: 1\n")
    entries = "[vllm.general_plugins]\nlsi_bench_probe = measure.probe:register\n"
    if scheduler:
        entries += "[vllm.stat_logger_plugins]\nlsi_bench_scheduler = measure.scheduler:SchedulerLog\n"
    (info / "entry_points.txt").write_text(entries)


def register() -> None:
    """vLLM calls this in each of its processes; only those that hold an AsyncLLM are of interest."""
    if FOLDER not in os.environ or multiprocessing.parent_process() is not None:
        return
    if _MODULE in sys.modules:
        _patch(sys.modules[_MODULE])
    elif not any(isinstance(finder, _Finder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _Finder())


class _Finder(importlib.abc.MetaPathFinder):
    """Patches the module when it is imported: importing it here would cost a second in processes that never do."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del path, target
        if fullname != _MODULE:
            return None
        sys.meta_path.remove(self)
        spec = importlib.util.find_spec(fullname)
        assert spec is not None
        assert spec.loader is not None
        run = spec.loader.exec_module

        def exec_module(module: ModuleType) -> None:
            run(module)
            _patch(module)

        spec.loader.exec_module = exec_module  # type: ignore[method-assign]
        return spec


def _patch(module: ModuleType) -> None:
    engine = module.AsyncLLM
    if getattr(engine, "lsi_bench", False):
        return
    engine.lsi_bench = True
    start, generate = engine.__init__, engine.generate
    log = Log(Path(os.environ[FOLDER]))

    def timed_start(self: Any, *args: Any, **kwargs: Any) -> None:
        begin = time.time()
        start(self, *args, **kwargs)
        log.started(begin, time.time())

    async def timed_generate(self: Any, *args: Any, **kwargs: Any) -> AsyncIterator[Any]:
        begin = time.time()
        async for output in generate(self, *args, **kwargs):
            if output.finished:
                log.finished(begin, time.time(), output)
            yield output

    engine.__init__, engine.generate = timed_start, timed_generate


class Log:
    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._file: int | None = None

    def started(self, begin: float, end: float) -> None:
        (self._folder / f"started-{os.getpid()}.txt").write_text(f"{begin} {end}\n")

    def finished(self, begin: float, end: float, output: Any) -> None:
        if self._file is None:
            path = self._folder / f"rows-{os.getpid()}.bin"
            self._file = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
        tokens = sum(len(one.token_ids) for one in output.outputs)
        record = (begin, end, len(output.prompt_token_ids or ()), tokens, output.num_cached_tokens or 0, 0)
        os.write(self._file, np.array(record, RECORD).tobytes())


def read_rows(folder: Path) -> np.ndarray[Any, Any]:
    """Every engine call of a run, by its begin."""
    parts = [np.fromfile(path, RECORD) for path in folder.glob("rows-*.bin")]
    rows = np.concatenate(parts) if parts else np.empty(0, RECORD)
    return rows[np.argsort(rows["begin"])]


def read_started(folder: Path) -> list[tuple[float, float]]:
    """Begin and end of each engine's construction."""
    lines = [path.read_text().split() for path in folder.glob("started-*.txt")]
    return sorted((float(begin), float(end)) for begin, end in lines)
