"""What travels between the stages: one packet per shard, as the single row of a Ray Data block.

One opaque column instead of a column per field: on 2 cores Ray Data moves 15-20 blocks/s whatever they hold, and a
shard of 64 rows as 64 Arrow rows cost a pickle each; as one packet it is one pickle and one buffer.
"""

from __future__ import annotations

import pickle
from dataclasses import dataclass, field
from typing import Any

import pyarrow as pa

from lsi_ray.errors import RowError

COLUMN = "packet"


@dataclass(slots=True)
class Row:
    """One request on its way. It holds a payload (for the next stage) or an error (it goes straight to the commit)."""

    position: int
    row: int
    line: int
    custom_id: str | None
    payload: bytes | None = None
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
    data = pickle.dumps(value, protocol=5)
    table = pa.table({COLUMN: pa.array([data], type=pa.large_binary())})
    if isinstance(value, Packet):
        table = table.append_column("load", pa.array([value.load])).append_column("rank", pa.array([value.rank]))
    return table


def load_and_rank(block: pa.Table) -> tuple[float, int]:
    return block.column("load")[0].as_py(), block.column("rank")[0].as_py()


def from_block(block: pa.Table) -> list[Any]:
    return [pickle.loads(value.as_buffer()) for value in block.column(COLUMN)]
