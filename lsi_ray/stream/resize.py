"""A running stream's pools follow what is wanted of them, and the cluster as it grows.

By its own rules Ray Data 2.60 never resizes ours. It grows a pool whose queues hold 1.75 times what its actors run at
once, and ours hold two shards more; it grows it within the GPUs that are there; it takes an actor away when that is
idle, which none is while there is work. And what it has asked the cluster's autoscaler for it asks for again as long as
the stream runs, needed or not, so that no node would ever go.

So the generate pool's least and most are both the number wanted: missing actors are made at once, and one that no node
can hold yet is a demand on which an autoscaler acts. An actor too many gets no more shards; when its last has ended it
is idle, and goes. The render pool's most follows the CPUs of the cluster, and it grows past them while engines wait for
it. Ray Data's own requests to the autoscaler are off.

Invariant: pools are touched in the executor's own thread alone, between two of its steps. Ray Data has no public way
for any of this: tests/integration/test_stream_resize.py fails where a new Ray Data works otherwise.
"""

from __future__ import annotations

import math
import time
from dataclasses import dataclass, replace
from typing import Any

from ray.data import Dataset
from ray.data._internal.cluster_autoscaler.resource_utilization_gauge import ClusterUtil
from ray.data._internal.execution.execution_callback import ExecutionCallback

from lsi_ray.config import Config
from lsi_ray.stream.build import render_workers

_LOOK_S = 10.0
_NEVER = 1e9
_CORES_PER_REPLICA = 32
"""Render workers that engines may ask nodes for; more are used where they are."""


@dataclass(slots=True)
class Wanted:
    """The number of replicas. Any thread may set it."""

    replicas: int

    def follow(self, stream: Dataset, config: Config) -> None:
        """From the start of the stream's execution on."""
        wanted = self

        class Follower(_Follower):
            def __init__(self) -> None:
                super().__init__(config, wanted)

        stream.context.custom_execution_callback_classes.append(Follower)


class _Follower(ExecutionCallback):  # type: ignore[misc]
    def __init__(self, config: Config, wanted: Wanted) -> None:
        self._config = config
        self._wanted = wanted
        self._look_at = 0.0

    def before_execution_starts(self, executor: Any) -> None:
        pools = {
            stage: (op, pool)
            for op in executor._topology
            for pool in op.get_autoscaling_actor_pools()
            for stage in ("Render", "Generate")
            if stage in op.name
        }
        autoscaler = executor._cluster_autoscaler
        autoscaler._cluster_scaling_up_util_threshold = ClusterUtil(_NEVER, _NEVER, _NEVER, _NEVER)
        self._generate = Yielding(pools["Generate"][1])
        self._render = pools["Render"][1]
        self._waiting = executor._topology[pools["Generate"][0]], executor._topology[pools["Render"][0]]
        self.on_execution_step(executor)

    def on_execution_step(self, executor: Any) -> None:  # noqa: ARG002
        self._generate.follow(max(self._wanted.replicas, 1))
        if (now := time.monotonic()) >= self._look_at:
            self._look_at = now + _LOOK_S
            self._follow_render()

    def _follow_render(self) -> None:
        """A quarter more while engines starve for rows that wait to be rendered; Ray Data takes the idle away."""
        size, config = self._render.current_size(), self._config
        there = render_workers(config)
        generate, render = (state.total_enqueued_input_blocks() for state in self._waiting)
        starving = not generate and render and self._generate.hungry
        if starving and self._render.num_pending_actors():
            return  # those that were asked for are coming, with a node
        most = max(there, min(config.render.max or math.inf, _CORES_PER_REPLICA * self._wanted.replicas))
        least = min(config.render.min, there)
        if starving and size >= there:
            least = min(size + math.ceil(size / 4), most)
        _set(self._render, least, max(there, least))


class Yielding:
    """A pool of actors that have work, some of which are to go: those that came last, whose caches hold least."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool
        self._leaving: set[Any] = set()
        self._rank = pool._update_rank
        pool._update_rank = self._update_rank

    @property
    def hungry(self) -> bool:
        """Whether the engines could run more than they have."""
        return bool(self._pool.num_running_actors() and self._pool.get_pool_util() < 1)

    def follow(self, wanted: int) -> None:
        if not self._pool.min_size() == self._pool.max_size() == wanted:
            _set(self._pool, wanted, wanted)
        running = list(self._pool._running_actors)
        surplus = max(0, len(running) - wanted)
        if len(self._leaving) != surplus or not self._leaving.issubset(running):
            order = [actor for actor in running[::-1] if actor in self._leaving]
            order += [actor for actor in running[::-1] if actor not in self._leaving]
            self._leaving = set(order[:surplus])

    def _update_rank(self, actor: Any, state: Any, died: bool) -> None:
        """Ray Data sends nothing to an actor that it takes for dead, and waits for what it has."""
        self._rank(actor=actor, state=state, died=died or actor in self._leaving)


def _set(pool: Any, least: int, most: int) -> None:
    pool._config = replace(pool._config, min_size=least, max_size=most, initial_size=least)
