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


def to_block(value: Any) -> pa.Table:
    """One pickled value as an Arrow table of one row. shape: (1,), dtype: large_binary."""
    data = pickle.dumps(value, protocol=5)
    return pa.table({COLUMN: pa.array([data], type=pa.large_binary())})


def from_block(block: pa.Table) -> list[Any]:
    return [pickle.loads(value.as_buffer()) for value in block.column(COLUMN)]
