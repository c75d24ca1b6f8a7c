"""What travels between the stages: one packet per shard, as the single row of a Ray Data block.

One opaque column instead of a column per field: on 2 cores Ray Data moves 15-20 blocks/s whatever they hold, and a
shard of 64 rows as 64 Arrow rows cost a pickle each; as one packet it is one pickle and one buffer. Pixels are not
pickled but copied once, and are read where Ray has put them: CPU to hand an image of 832 x 832 (4.3 MB of patches) from
the renderer to the engine, without Ray's own copy: 10.2 ms as bytes, 0.7 ms so (2 cores, a VM with dear page faults).
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lsi_ray.engine import Payload
from lsi_ray.errors import RowError

COLUMN = "packet"
_ALIGN = 64


@dataclass(slots=True)
class Row:
    """One request on its way. It holds a payload (for the next stage) or an error (it goes straight to the commit)."""

    position: int
    row: int
    line: int
    custom_id: str | None
    payload: Payload | None = None
    error: RowError | None = None
    same_as: int | None = None
    """Rows of a packet that have the same ask the same: they share the payload, which travels once, or the error."""
    deduplicated: bool = False
    """Its answer was not computed for it."""


@dataclass(slots=True)
class Packet:
    batch_id: str
    shard_id: int
    session: int
    exclusive: bool
    """A suspect shard: its rows ran in an engine that died. It runs alone."""
    rank: int
    """The order of rows that wait inside an engine, smaller first (ledger/turns.py)."""
    cache_salt: str
    """The caller's (ledger/cache_salts.py)."""
    rows: list[Row] = field(default_factory=list)

    @property
    def load(self) -> float:
        """What it weighs in an engine, in rows: light ones count half, and one whose rendered media or prompt is
        large as many as it is large."""
        return sum(max(len(row.payload or b"") / LOAD_BYTES, 0.5) for row in self.rows)


LOAD_BYTES = 4 * 2**20
"""With 256 rows at once in the engine, at most 2 GB of rendered rows are in its process."""


def to_block(value: Any) -> pa.Table:
    """One pickled value as an Arrow table of one row. shape: (1,), dtype: large_binary. A packet's tells what `Room`
    asks before it is unpickled."""
    table = pa.table({COLUMN: _array(value)})
    if isinstance(value, Packet):
        table = table.append_column("load", pa.array([value.load])).append_column("rank", pa.array([value.rank]))
    return table


def load_and_rank(block: pa.Table) -> tuple[float, int]:
    return block.column("load")[0].as_py(), block.column("rank")[0].as_py()


def _array(value: Any) -> pa.LargeBinaryArray:
    """Large buffers are not pickled: they are copied once, to their places behind the pickle. Before the parts stand
    their number and sizes; each begins at a multiple of `_ALIGN` bytes."""
    large: list[pickle.PickleBuffer] = []
    head = pickle.dumps(value, protocol=5, buffer_callback=large.append)
    parts = [memoryview(head), *(one.raw() for one in large)]
    sizes = np.array([len(parts), *(part.nbytes for part in parts)], np.int64)
    places, total = _places(sizes)
    data = pa.allocate_buffer(total)
    space = np.frombuffer(data, np.uint8)
    space[: sizes.nbytes] = sizes.view(np.uint8)
    for place, part in zip(places, parts, strict=True):
        space[place : place + part.nbytes] = np.frombuffer(part, np.uint8)
    edges = pa.py_buffer(np.array([0, total], np.int64))
    return pa.LargeBinaryArray.from_buffers(pa.large_binary(), 1, [None, edges, data])


def from_block(block: pa.Table) -> list[Any]:
    """The values of a block. Their large buffers are views of it: it lives as long as they do."""
    return [_value(data) for chunk in block.column(COLUMN).chunks for data in _views(chunk)]


def _views(chunk: pa.LargeBinaryArray) -> list[memoryview]:
    """The memory of each value, which `as_buffer` of a value would copy."""
    _, edges, data = chunk.buffers()
    marks = np.frombuffer(edges, np.int64)[chunk.offset : chunk.offset + len(chunk) + 1].tolist()
    return [memoryview(data)[begin:end] for begin, end in pairwise(marks)]


def _value(data: memoryview) -> Any:
    (count,) = np.frombuffer(data[:8], np.int64)
    sizes = np.frombuffer(data[: 8 * (count + 1)], np.int64)
    places, _ = _places(sizes)
    head, *large = (data[place : place + size] for place, size in zip(places, sizes[1:], strict=True))
    return pickle.loads(head, buffers=large)


def _places(sizes: NDArray[np.int64]) -> tuple[list[int], int]:
    """Where each part begins, and where the last one ends. `sizes`: the number of parts, and their sizes."""
    places, end = [], sizes.nbytes
    for size in sizes[1:].tolist():
        begin = -(-end // _ALIGN) * _ALIGN
        places.append(begin)
        end = begin + size
    return places, end
