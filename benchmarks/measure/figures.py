"""From the records of one run to its figures.

The clock runs from the first row that enters the engine to the last row answered. What is before it shows in
`start_s`, from the command to the first row in the engine. No contender prepares rows while its engine starts
(contenders/gate.py), but for `raw`, which is there for that; so only a first shard is prepared outside the clock.
"""

from __future__ import annotations

from dataclasses import dataclass
from statistics import fmean
from typing import Any

import numpy as np
from contenders.task import Answers

from measure.gpu import GpuSampler
from measure.process_tree import ProcessTree

_TAIL = 0.95


@dataclass(frozen=True, slots=True)
class Records:
    """What was seen of one run."""

    launched: float
    exited: float
    started: list[tuple[float, float]]
    """Begin and end of each engine's construction."""
    calls: np.ndarray[Any, Any]
    """`measure.probe.RECORD` of each engine call."""
    answers: Answers
    scheduler: list[tuple[float, int, int, float]]


def figures(records: Records, tree: ProcessTree, gpu: GpuSampler, max_num_seqs: int) -> dict[str, Any]:
    calls = records.calls
    times = np.array([at for at, _ in records.answers])
    rows = np.cumsum([count for _, count in records.answers])
    begin, end, total = float(calls["begin"][0]), float(times[-1]), int(rows[-1])
    seconds = end - begin
    tail_begin = float(times[np.searchsorted(rows, _TAIL * total)])
    cpu = tree.cpu(begin, end)
    prompt, output = int(calls["prompt"].sum()), int(calls["output"].sum())
    return {
        "rows": total,
        "rows_per_s": total / seconds,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "prompt_tokens_per_s": prompt / seconds,
        "output_tokens_per_s": output / seconds,
        "hit_rate": float(calls["cached"].sum()) / prompt,
        "seconds": seconds,
        "engine_start_s": max((done - began for began, done in records.started), default=None),
        "engine_up_s": max((done - records.launched for _, done in records.started), default=None),
        "start_s": begin - records.launched,
        "first_row_s": float(times[0]) - begin,
        "wall_s": records.exited - records.launched,
        "tail_s": end - tail_begin,
        "tail_share": (end - tail_begin) / seconds,
        "starved_share": starved(calls, max_num_seqs) / seconds,
        "cpu_s_per_1000": {label: 1000 * spent / total for label, spent in cpu.items()},
        "cpu_s_per_1000_all": 1000 * sum(cpu.values()) / total,
        "others_cpu_share": tree.others(begin, end) / seconds,
        "peak_bytes": tree.peak_bytes,
        "gpu": gpu.means(begin, end),
        "scheduler": _scheduler(records.scheduler, begin, tail_begin),
    }


def starved(calls: np.ndarray[Any, Any], max_num_seqs: int) -> float:
    """Seconds, before the last 5 % of rows entered, in which the engine held fewer rows than it can run."""
    edges = np.concatenate([calls["begin"], calls["end"]])
    steps = np.concatenate([np.ones(len(calls)), -np.ones(len(calls))])
    order = np.argsort(edges, kind="stable")
    edges, inside = edges[order], np.cumsum(steps[order])
    last = calls["begin"][int(_TAIL * (len(calls) - 1))]
    spans = np.diff(edges)
    before = edges[:-1] < last
    return float(spans[before & (inside[:-1] < max_num_seqs)].sum())


def _scheduler(samples: list[tuple[float, int, int, float]], begin: float, end: float) -> dict[str, float] | None:
    taken = [sample for sample in samples if begin <= sample[0] <= end]
    if not taken:
        return None
    return {
        "running": fmean(sample[1] for sample in taken),
        "waiting": fmean(sample[2] for sample in taken),
        "none_waiting_share": fmean(sample[2] == 0 for sample in taken),
        "kv_cache_used": fmean(sample[3] for sample in taken),
    }
