"""A stream of two pools under `Wanted`, in a Ray of its own: `python resized_stream.py FOLDER` writes seen.json there.

Wanted are 2 replicas, then 4 till all of them have answered, then 1 till only one answers. None is ever idle; when that
is done, the rest of the rows is quick."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import ray
from ray.data import ActorPoolStrategy

from lsi_ray.config import parse_config
from lsi_ray.stream.cluster import cluster
from lsi_ray.stream.resize import Wanted

ROWS = 400
SLOW_S = 0.4
CONFIG = {"model": "m", "engine": {"type": "simulated"}, "replicas": {"min": 1, "max": 8}, "render": {"max": 1}}
Block = dict[str, Any]


class Render:
    def __call__(self, batch: Block) -> Block:
        return batch


class Generate:
    def __init__(self, quick: Path) -> None:
        self._name = ray.get_runtime_context().get_actor_id()
        self._quick = quick

    def __call__(self, batch: Block) -> Block:
        if not self._quick.exists():
            time.sleep(SLOW_S)
        return {**batch, "actor": [self._name]}


def main(folder: Path) -> None:
    wanted, quick = Wanted(2), folder / "quick"
    rows = ray.data.range(ROWS, override_num_blocks=ROWS)
    shard: dict[str, Any] = {"num_cpus": 0.1, "batch_size": 1}
    rendered = rows.map_batches(Render, compute=ActorPoolStrategy(min_size=1, max_size=1), **shard)
    pool = ActorPoolStrategy(min_size=1, max_size=8, max_tasks_in_flight_per_actor=2)
    stream = rendered.map_batches(Generate, fn_constructor_args=(quick,), compute=pool, **shard)
    wanted.follow(stream, parse_config(CONFIG, source="here"))
    seen: list[tuple[int, str, int]] = []
    for row in stream.iter_rows():
        seen.append((int(row["id"]), str(row["actor"]), wanted.replicas))
        if wanted.replicas == 2 and len({actor for _, actor, _ in seen}) == 2:
            wanted.replicas = 4
        if wanted.replicas == 4 and len({actor for _, actor, _ in seen}) == 4:
            wanted.replicas = 1
        if wanted.replicas == 1 and len({actor for _, actor, _ in seen[-12:]}) == 1:
            quick.touch()
    (folder / "seen.json").write_text(json.dumps(seen))


if __name__ == "__main__":
    with cluster(streams=8):
        main(Path(sys.argv[1]))
