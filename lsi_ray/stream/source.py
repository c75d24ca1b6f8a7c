"""The source: leases shards from the ledger for as long as there is work, one block per shard.

One read task that never ends by itself while rows are out: a crash may hand rows back at any time. Never retried: its
blocks are leases, and a lease is handed out once (Ray would replay the generator to rebuild a lost block).
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa
from ray.data import Datasource, ReadTask
from ray.data.block import BlockMetadata

from lsi_ray.stream.leases import leases
from lsi_ray.stream.packet import to_block
from lsi_ray.stream.ports import StreamLedger


class LeaseSource(Datasource):  # type: ignore[misc]
    """`max_outstanding_rows` bounds what is leased and not yet answered: the rows a crash can cost."""

    def __init__(self, ledger: StreamLedger, session: int, max_outstanding_rows: int) -> None:
        self._ledger = ledger
        self._session = session
        self._max_outstanding_rows = max_outstanding_rows

    def get_read_tasks(self, parallelism: int, *args: object, **kwargs: object) -> list[ReadTask]:  # noqa: ARG002
        metadata = BlockMetadata(num_rows=None, size_bytes=None, input_files=None, exec_stats=None)
        ledger, session, limit = self._ledger, self._session, self._max_outstanding_rows

        def read() -> Iterable[pa.Table]:
            return (to_block(lease) for lease in leases(ledger, session, limit))

        return [ReadTask(read, metadata)]

    def estimate_inmemory_data_size(self) -> int | None:
        return None

    def get_name(self) -> str:
        return "Lease"
