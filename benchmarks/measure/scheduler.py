"""vLLM's own scheduler statistics, about four times a second: requests running and waiting, KV cache in use.

A `vllm.stat_logger_plugins` plugin, for GPU hosts: with it the engine collects statistics, which costs CPU time.
"""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any

from vllm.v1.metrics.loggers import StatLoggerBase

from measure.probe import FOLDER

_EVERY_S = 0.25


class SchedulerLog(StatLoggerBase):  # type: ignore[misc]
    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        del vllm_config
        path = Path(os.environ[FOLDER]) / f"scheduler-{os.getpid()}-{engine_index}.txt"
        self._file = path.open("a", buffering=1)
        self._next = 0.0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        del iteration_stats, args, kwargs
        now = time.time()
        if scheduler_stats is None or now < self._next:
            return
        self._next = now + _EVERY_S
        stats = scheduler_stats
        self._file.write(f"{now} {stats.num_running_reqs} {stats.num_waiting_reqs} {stats.kv_cache_usage}\n")

    def log_engine_initialized(self) -> None:
        pass
