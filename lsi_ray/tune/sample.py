"""The rows that candidates are measured with: a seeded sample of the user's archive, rendered once.

Runs of neighbours in running order are drawn, not single rows: rows that share a prefix or an image stand next to each
other there, and the prefix cache has to find in the sample what it will find in the batch. Rendering is done once and
kept in a file: it does not depend on what is swept, and in a batch it is the work of other processes.
"""

from __future__ import annotations

import os
import pickle
import random
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
from numpy.typing import NDArray

from lsi_ray.archive.index import index_tar, load_index, save_index
from lsi_ray.archive.validate import validate
from lsi_ray.batch_files import BatchFiles, row_limits
from lsi_ray.config import Config
from lsi_ray.engine import Payload, Renderer, make_renderer
from lsi_ray.errors import ConfigError, RowError
from lsi_ray.intake import archive_limits

_NEIGHBOURS = 16
_RENDERED_BYTES = 4 * 2**30


@dataclass(frozen=True, slots=True)
class Sample:
    """What the parent leaves in the scratch folder for its children."""

    tar: str
    rows: int
    """Of the sample."""
    of: int
    """Rows of the archive that can run."""


def draw(plan_rows: int, rows: int, seed: int) -> list[int]:
    """Positions in the plan, in runs of neighbours that lie spread over all of it; the runs in random order."""
    rows = min(rows, plan_rows)
    length = max(1, min(_NEIGHBOURS, rows // _NEIGHBOURS))
    parts = -(-rows // length)
    dice = random.Random(seed)
    runs = []
    for number in range(parts):
        # Each run within its own part of the plan: spread evenly, and none overlaps another.
        low, high = (plan_rows * edge // parts for edge in (number, number + 1))
        first = dice.randint(low, max(high - length, low))
        runs.append(range(first, min(first + length, high)))
    dice.shuffle(runs)
    return [position for run in runs for position in run][:rows]


def prepare(tar: Path, compressed: bool, config: Config, rows: int, seed: int, scratch: Path) -> Sample:
    """Index and validate the plain tar, draw the sample, and leave both in `scratch`. Raises ArchiveError, BatchRefused
    for what `lsi run` would refuse, ConfigError where no row can run."""
    with open(tar, "rb") as file:
        index = index_tar(file, archive_limits(config), decompressed=compressed)
        checked = validate(file, index, served_model=config.model, limits=row_limits(config))
    if not len(checked.plan):
        raise ConfigError(
            f"{tar}: every row is bad; the first, line {checked.failures[0].line}: {checked.failures[0].message}"
        )
    positions = draw(len(checked.plan), rows, seed)
    save_index(index, scratch / "index")
    np.save(scratch / "plan.npy", checked.plan[positions])
    sample = Sample(str(tar.absolute()), len(positions), len(checked.plan))
    (scratch / "sample.json").write_bytes(msgspec.json.encode(sample))
    return sample


class Rendered:
    """The sample's rendered rows in a file; a row is read when it enters the engine."""

    def __init__(self, path: Path, edges: NDArray[Any]) -> None:
        self._edges = edges
        self._fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)

    def __len__(self) -> int:
        return len(self._edges) - 1

    def read(self, number: int) -> Payload:
        begin, end = int(self._edges[number]), int(self._edges[number + 1])
        payload: Payload = pickle.loads(os.pread(self._fd, end - begin, begin))
        return payload


async def rendered(scratch: Path, config: Config, seconds: float) -> Rendered:
    """The rendered sample; made by the first that asks, within about `seconds` and 4 GiB. Raises ConfigError."""
    path, edges = scratch / "rendered.bin", scratch / "rendered.npy"
    if not edges.exists():
        np.save(edges, np.cumsum([0, *await _render(scratch, config, path, time.monotonic() + seconds)]))
    return Rendered(path, np.load(edges))


async def _render(scratch: Path, config: Config, path: Path, deadline: float) -> Sequence[int]:
    """Writes the rows one after another; their sizes."""
    sample = msgspec.json.decode((scratch / "sample.json").read_bytes(), type=Sample)
    plan = np.load(scratch / "plan.npy")
    files = BatchFiles(Path(sample.tar), load_index(scratch / "index"), plan, row_limits(config))
    renderer, sizes, refused = make_renderer(config), [], None
    with path.open("wb") as target:
        for position in range(len(plan)):
            try:
                row = await _row(renderer, files, position)
            except RowError as error:  # one of the batch's bad rows: it never reaches an engine
                refused = error
                continue
            target.write(row)
            sizes.append(len(row))
            if time.monotonic() > deadline or target.tell() > _RENDERED_BYTES:
                break
    files.close()
    if not sizes:
        raise ConfigError(f"no row of the sample can be rendered: {refused}")
    return sizes


async def _row(renderer: Renderer, files: BatchFiles, position: int) -> bytes:
    return pickle.dumps(await renderer.render(files.request(position), files.read_media), protocol=5)
