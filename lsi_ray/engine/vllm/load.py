"""What the scheduler of a vLLM engine has to do, for `lsi tune`: vLLM's own statistics.

They cost some CPU per step, so the engines of batches do without.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lsi_ray.config import VllmEngine
from lsi_ray.engine.load import Load
from lsi_ray.engine.vllm.engine import VllmReplica
from lsi_ray.engine.vllm.imports import StatLoggerBase


class _Watch(StatLoggerBase):  # type: ignore[misc]
    """vLLM calls `record` after each step, with what it knows of it."""

    def __init__(self, vllm_config: Any, engine_index: int = 0) -> None:
        del engine_index
        self.config = vllm_config
        self.running = self.preemptions = 0
        self.kv_used = 0.0

    def record(self, scheduler_stats: Any, iteration_stats: Any, *args: Any, **kwargs: Any) -> None:
        del args, kwargs
        if scheduler_stats is not None:
            self.running = max(self.running, scheduler_stats.num_running_reqs)
            self.kv_used = max(self.kv_used, scheduler_stats.kv_cache_usage)
        if iteration_stats is not None:
            self.preemptions += iteration_stats.num_preempted_reqs

    def log_engine_initialized(self) -> None:
        pass


def watched_replica(engine: VllmEngine) -> tuple[VllmReplica, Callable[[], tuple[Load, dict[str, int | float]]]]:
    """A replica, and what tells of its load and of the arguments that it works with, once it has started."""
    watches: list[_Watch] = []

    def make(vllm_config: Any, engine_index: int = 0) -> _Watch:
        watches.append(_Watch(vllm_config, engine_index))
        return watches[-1]

    def look() -> tuple[Load, dict[str, int | float]]:
        watch = watches[-1]
        config, cache = watch.config, watch.config.cache_config
        tokens = int(cache.num_gpu_blocks or 0) * int(cache.block_size or 0)
        arguments: dict[str, int | float] = {
            "max_num_seqs": int(config.scheduler_config.max_num_seqs),
            "max_num_batched_tokens": int(config.scheduler_config.max_num_batched_tokens),
            "tensor_parallel_size": int(config.parallel_config.tensor_parallel_size),
        }
        if engine.device == "cuda":
            arguments["gpu_memory_utilization"] = float(cache.gpu_memory_utilization)
        return Load(watch.running, round(watch.kv_used, 4), tokens, watch.preemptions), arguments

    return VllmReplica(engine, [make]), look
