"""The render stage: reads the rows of a lease by byte range, and renders each to the engine's input. CPU only."""

from __future__ import annotations

import asyncio
import time
from collections import OrderedDict
from pathlib import Path

import pyarrow as pa

from lsi_ray.archive.rows import MediaRef, Request
from lsi_ray.batch_files import BatchFiles
from lsi_ray.config import Config, VllmEngine
from lsi_ray.engine import make_renderer
from lsi_ray.errors import ArchiveError, EngineError, RowError
from lsi_ray.ledger.records import Lease
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.stream.logs import log_lines
from lsi_ray.stream.niceness import after_the_engine
from lsi_ray.stream.packet import Packet, Row, from_block, to_block
from lsi_ray.stream.stage_metrics import StageMetrics

_OPEN_BATCHES = 8


class Render:
    def __init__(self, config: Config, work: Path, log_file: Path | None = None, *, gives_way: bool = False) -> None:
        if gives_way:
            after_the_engine()
        prepare_process(config, log_file)
        self._config = config
        self._work = WorkDir(work)
        self._renderer = make_renderer(config)
        self._metrics = StageMetrics(config.model)
        self._loop = asyncio.new_event_loop()
        self._batches: OrderedDict[str, BatchFiles] = OrderedDict()

    def __call__(self, block: pa.Table) -> pa.Table:
        (lease,) = from_block(block)
        return to_block(self._loop.run_until_complete(self._render_shard(lease)))

    async def _render_shard(self, lease: Lease) -> Packet:
        files = self._open(lease.batch_id)
        if files is None:
            return _packet(lease, [])
        begun, reading = time.perf_counter(), Reading(files)
        rows = await self._render_rows(files, lease, reading)
        self._metrics.took("read", reading.seconds)
        self._metrics.took("render", time.perf_counter() - begun - reading.seconds)
        self._metrics.media(reading.media_bytes)
        return _packet(lease, rows)

    async def _render_rows(self, files: BatchFiles, lease: Lease, reading: Reading) -> list[Row]:
        rendered: dict[int, Row] = {}
        rows = []
        for position in lease.todo():
            entry = files.plan[position]
            same_as = int(entry["same_as"])
            row = Row(position, int(entry["row"]), int(entry["line"]), custom_id=None, same_as=same_as)
            await self._render_row(row, rendered.get(same_as), reading, lease.cache_salt)
            rendered.setdefault(same_as, row)
            rows.append(row)
        return rows

    async def _render_row(self, row: Row, same: Row | None, reading: Reading, caller: str) -> None:
        """`same`: a rendered row that asks the same."""
        try:
            request = reading.request(row.position)
            row.custom_id = request.custom_id
            if same is not None:
                row.payload, row.error = same.payload, same.error
                return
            row.payload = await self._renderer.render(request, reading.read_media, caller)
        except RowError as error:
            row.error = error
        except (EngineError, ArchiveError):  # this worker or its storage is sick: that ends the attempt, not the row
            raise
        except Exception as error:  # a bug met by one row must not end the others; the row says what happened
            row.error = RowError("internal_error", f"rendering failed: {type(error).__name__}: {error}", status=500)

    def _open(self, batch_id: str) -> BatchFiles | None:
        """None when the batch was cancelled or has expired, and is erased: nobody will ask for these rows."""
        if batch_id not in self._batches:
            if not self._work.batch(batch_id).plan.exists():
                return None
            self._batches[batch_id] = BatchFiles.open(self._work.batch(batch_id), self._config)
            if len(self._batches) > _OPEN_BATCHES:
                self._batches.popitem(last=False)[1].close()
        self._batches.move_to_end(batch_id)
        return self._batches[batch_id]


def _packet(lease: Lease, rows: list[Row]) -> Packet:
    return Packet(
        batch_id=lease.batch_id,
        shard_id=lease.shard_id,
        session=lease.session,
        exclusive=lease.exclusive,
        rank=lease.rank,
        cache_salt=lease.cache_salt,
        rows=rows,
    )


class Reading:
    """The reads of one shard, with their time and the bytes of media."""

    def __init__(self, files: BatchFiles) -> None:
        self._files = files
        self.seconds = 0.0
        self.media_bytes = 0

    def request(self, position: int) -> Request:
        begun = time.perf_counter()
        try:
            return self._files.request(position)
        finally:
            self.seconds += time.perf_counter() - begun

    def read_media(self, ref: MediaRef) -> bytes:
        begun = time.perf_counter()
        data = self._files.read_media(ref)
        self.seconds += time.perf_counter() - begun
        self.media_bytes += len(data)
        return data


def prepare_process(config: Config, log_file: Path | None) -> None:
    """What a worker process must have before its engine part is imported. `log_file`: None is standard error."""
    log_lines(log_file)
    if isinstance(config.engine, VllmEngine):
        from lsi_ray.engine.vllm.config import set_environment

        set_environment(config.engine)
