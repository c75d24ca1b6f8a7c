"""Reads what `measure.scheduler` wrote; apart from it, because that module imports vLLM."""

from __future__ import annotations

from pathlib import Path


def read_scheduler(folder: Path) -> list[tuple[float, int, int, float]]:
    """(time, running, waiting, KV cache in use 0..1) of every sample."""
    samples = []
    for path in folder.glob("scheduler-*.txt"):
        for line in path.read_text().splitlines():
            now, running, waiting, used = line.split()
            samples.append((float(now), int(running), int(waiting), float(used)))
    return sorted(samples)
