"""A candidate: a config with a few engine arguments changed. The empty one is the config as it was given."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lsi_ray.config import Config, VllmEngine, parse_config

SEATS, TOKENS, TENSOR, MEMORY = (
    "max_num_seqs",
    "max_num_batched_tokens",
    "tensor_parallel_size",
    "gpu_memory_utilization",
)
Value = int | float
BOUNDS = {SEATS: (1, 2048), TOKENS: (256, 131_072)}

_LEAST_MEMORY, _MOST_MEMORY = 0.5, 0.97
# What vLLM 0.32 says when its share of the GPU is too small for one request of max_model_len, or too big to be had.
_TOO_LITTLE = re.compile(
    r"No available memory for the cache blocks|KV cache is needed|increasing `?gpu_memory_util", re.I
)
_TOO_MUCH = re.compile(r"out of memory|is less than desired GPU memory utilization", re.I)


@dataclass(frozen=True, slots=True)
class Candidate:
    changes: tuple[tuple[str, Value], ...] = ()
    """Engine arguments by vLLM's names, in the order of names."""

    def changed(self, name: str, value: Value) -> Candidate:
        return Candidate(tuple(sorted({**dict(self.changes), name: value}.items())))

    def get(self, name: str, effective: Mapping[str, Value]) -> Value:
        """`effective`: the values that the engine of the given config works with, its defaults included."""
        return dict(self.changes).get(name, effective[name])

    def without(self, effective: Mapping[str, Value]) -> Candidate:
        """The same candidate, not naming what is as it was given: one has one name."""
        return Candidate(tuple(change for change in self.changes if change not in effective.items()))

    def applied(self, config: Config) -> Config:
        """Raises ConfigError where the config does not allow it."""
        data = config.model_dump(mode="json")
        arguments = data["engine"]["args"] if isinstance(config.engine, VllmEngine) else data["engine"]
        arguments.update(self.changes)
        return parse_config(data, source=str(self))

    def __str__(self) -> str:
        return ", ".join(f"{name} {value:g}" for name, value in self.changes) or "as given"


@dataclass(frozen=True, slots=True)
class Space:
    """What is swept: each argument in powers of two between its bounds, both included."""

    bounds: dict[str, tuple[int, int]]

    @classmethod
    def of(cls, config: Config, effective: Mapping[str, Value], gpus: int) -> Space:
        """`gpus`: of this machine; tensor parallelism is tried only where there are several."""
        bounds = {**BOUNDS, TENSOR: (1, gpus)}
        engine = config.engine
        if not (isinstance(engine, VllmEngine) and engine.device == "cuda" and gpus > 1):
            del bounds[TENSOR]
        return cls({name: limits for name, limits in bounds.items() if name in effective})

    def next(self, of: Candidate, name: str, up: bool, effective: Mapping[str, Value]) -> Candidate | None:
        """The neighbour of a candidate in one argument; None beyond the bounds."""
        now = int(of.get(name, effective))
        value = now * 2 if up else now // 2
        low, high = self.bounds[name]
        if not low <= value <= high:
            return None
        new = of.changed(name, value).without(effective)
        if TOKENS in effective and new.get(SEATS, effective) > new.get(TOKENS, effective):
            # vLLM refuses more rows than tokens in a step.
            return new.changed(TOKENS, value).without(effective) if name == SEATS else None
        return new


def remedy(candidate: Candidate, failure: str, effective: Mapping[str, Value]) -> Candidate | None:
    """The same with another share of the GPU's memory, where that is why it did not start."""
    share = float(candidate.get(MEMORY, {MEMORY: 0.9, **effective}))
    if _TOO_LITTLE.search(failure):
        other = min(round(share + 0.04, 2), _MOST_MEMORY)
    elif _TOO_MUCH.search(failure):
        other = max(round(share - 0.06, 2), _LEAST_MEMORY)
    else:
        return None
    return candidate.changed(MEMORY, other) if other != share else None


def described(config: Config) -> dict[str, Any]:
    """The swept arguments that a config itself sets."""
    arguments = config.engine.args if isinstance(config.engine, VllmEngine) else config.engine.model_dump()
    return {name: arguments[name] for name in (SEATS, TOKENS, TENSOR, MEMORY) if name in arguments}
