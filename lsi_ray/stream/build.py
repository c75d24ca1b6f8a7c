"""The whole stream in one function."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset

from lsi_ray.archive.cuts import smallest_shard
from lsi_ray.config import Config, VllmEngine
from lsi_ray.stream.commit import Commit
from lsi_ray.stream.generate import Generate
from lsi_ray.stream.ledger_actor import RemoteLedger, as_stream_ledger
from lsi_ray.stream.render import Render
from lsi_ray.stream.source import LeaseSource

_CONTROL = 0.01  # logical CPUs of a stage that mostly waits


def build_stream(
    config: Config,
    work: Path,
    ledger: RemoteLedger,
    session: int,
    log_file: Path | None = None,
) -> Dataset:
    """source -> render -> generate -> commit, as a lazy Ray Data execution whose blocks are shards.

    As many shards may be in a replica as the smallest ones fill it, and as many again that wait for one long row each;
    what it holds of larger ones `Room` bounds. The rows that are out at once follow from the ordinary ones.
    `log_file`: where the stages log, on storage that they share; None is each one's standard error.
    """
    _set_context()
    stages = as_stream_ledger(ledger)
    in_flight = 2 * shards_in_flight(config, smallest_shard(config.shard_rows))
    render_max = render_workers(config)
    waiting = config.replicas.max * (shards_in_flight(config, config.shard_rows) + 2) + 2 * render_max + 2
    outstanding = config.shard_rows * waiting

    leased = _read(LeaseSource(stages, session, outstanding))
    rendered = leased.map_batches(
        Render,
        fn_constructor_args=(config, work, log_file),
        fn_constructor_kwargs={"gives_way": True},
        compute=ActorPoolStrategy(min_size=min(config.render.min, render_max), max_size=render_max),
        num_cpus=1,
        **_SHARD,
    )
    generated = rendered.map_batches(
        Generate,
        fn_constructor_args=(config, stages, log_file),
        compute=ActorPoolStrategy(
            min_size=config.replicas.min,
            max_size=config.replicas.max,
            initial_size=config.replicas.min,
            max_concurrent_calls_per_actor=in_flight,
            max_tasks_in_flight_per_actor=in_flight + 2,
            enable_true_multi_threading=True,
        ),
        **_replica_resources(config),
        **_SHARD,
    )
    return generated.map_batches(
        Commit,
        fn_constructor_args=(config, work, stages, log_file),
        fn_constructor_kwargs={"gives_way": True},
        compute=ActorPoolStrategy(min_size=1, max_size=max(1, config.replicas.max // 4)),
        num_cpus=_CONTROL,
        **_SHARD,
    )


def _read(source: LeaseSource) -> Dataset:
    with warnings.catch_warnings():
        # The only way to say `max_retries` in Ray 2.60 is the argument that 2.64 will replace.
        warnings.simplefilter("ignore")
        return ray.data.read_datasource(
            source, override_num_blocks=1, concurrency=1, ray_remote_args={"num_cpus": _CONTROL, "max_retries": 0}
        )


# One block is one row (packet.py); Ray Data wants a number where GPUs are asked for.
_SHARD: dict[str, Any] = {"batch_size": 1, "batch_format": "pyarrow", "zero_copy_batch": True}


def shards_in_flight(config: Config, shard_rows: int) -> int:
    """Shards that fill one replica: twice what its scheduler runs at once, so that it never waits for a block."""
    return max(2, math.ceil(2 * config.engine.max_num_seqs / shard_rows))


def render_workers(config: Config) -> int:
    """At most this many render workers: the config's, else the cluster's CPUs less one per replica."""
    if config.render.max is not None:
        return max(config.render.max, config.render.min)
    cpus = int(ray.cluster_resources().get("CPU", 1))
    return max(config.render.min, cpus - config.replicas.max, 1)


def _replica_resources(config: Config) -> dict[str, Any]:
    if config.engine.gpus:
        return {"num_gpus": config.engine.gpus, "num_cpus": 1}
    # On CPU the engine's threads share the machine with everything else: scheduling by CPUs would only leave it idle.
    return {"num_cpus": _CONTROL if isinstance(config.engine, VllmEngine) else 0}


def _set_context() -> None:
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    # A block leaves its stage as soon as it is made: every packet is larger than one byte.
    context.target_max_block_size = 1
    # The default fails a job that waits half an hour for a GPU.
    context.execution_no_progress_timeout_s = -1
    context.execution_options.preserve_order = False
