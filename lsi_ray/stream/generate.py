"""The generate stage: one engine replica in one Ray actor. Rows of many shards run together, and leave as they come.

Ray Data's own async UDFs hold all of a task's output until the task ends, so this is a plain generator that runs in as
many threads as shards are in flight, over one event loop that owns the engine.

Invariants: a shard runs only after `begin` (so a second delivery of its block is noticed); an engine that dies ends the
attempt of the shards in it and of no others; a suspect shard runs alone; a replica that cannot get an engine hands its
shards back while there is another one that can.
"""

from __future__ import annotations

import logging
import queue
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path

import pyarrow as pa

from lsi_ray.config import Config
from lsi_ray.errors import ConfigError, EngineError, RowError
from lsi_ray.stream.gate import Gate
from lsi_ray.stream.hung import replica_name
from lsi_ray.stream.keeper import Keeper, Losses
from lsi_ray.stream.logs import fields
from lsi_ray.stream.packet import Packet, Row, from_block, load_and_rank, to_block
from lsi_ray.stream.ports import StreamLedger
from lsi_ray.stream.presence import Presence
from lsi_ray.stream.render import prepare_process
from lsi_ray.stream.room import Room
from lsi_ray.stream.stage_metrics import StageMetrics

log = logging.getLogger(__name__)

_FLUSH_S = 20.0  # a long row holds the finished rows of its shard back no longer than this
_COMMIT_S = 30.0  # a suspect waits so long for its answers to be durable
_BLAME_S = 5.0  # and a shard whose engine died so long before it is blamed: rows that were answered were not in it
_POLL_S = 0.05
_ROOM = 2  # rows in the engine, by those that it runs at once: so that it never waits for one

GiveBack = Callable[[float], None]


class Generate:
    def __init__(self, config: Config, ledger: StreamLedger, log_file: Path | None = None) -> None:
        prepare_process(config, log_file)
        self._metrics = StageMetrics(config.model)
        self._ledger = ledger
        self._name = replica_name()
        self._room = Room(_ROOM * config.engine.max_num_seqs)
        self._gate = Gate()
        self._presence = Presence(ledger, self._name, config.replicas.min)
        self._keeper = Keeper(config, self._presence.note)
        try:
            self._keeper.start()
        except EngineError:
            if self._presence.alone():
                raise

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        with self._room.taken(*load_and_rank(block)) as give_back:
            (packet,) = from_block(block)
            generation = yield from self._enter(packet, give_back)
        if (gone := self._keeper.settled()) is not None:
            self._stand_aside(packet, gone, begun=generation is not None)

    def _enter(self, packet: Packet, give_back: GiveBack) -> Generator[pa.Table, None, int | None]:
        """The shard's way through the engine; the engine's generation, None without one."""
        with self._gate.alone() if packet.exclusive else self._gate.shared():
            if packet.exclusive:
                self._keeper.check()
            finished: Losses = queue.SimpleQueue()
            with self._keeper.inside(finished) as generation:
                if generation is not None:
                    yield from map(to_block, self._begin(packet, generation, finished, give_back))
            if packet.exclusive:
                if generation is not None:
                    self._until_durable(packet, {row.position for row in packet.rows}, _COMMIT_S)
                self._keeper.check()
        return generation

    def _begin(self, packet: Packet, generation: int, finished: Losses, give_back: GiveBack) -> Iterator[Packet]:
        todo = self._ledger.begin(packet.session, packet.shard_id, self._name)
        if todo is None:
            return
        if not finished.empty():  # the engine was lost before a row was in it
            self._ledger.release(packet.session, (packet.shard_id,))
            return
        wanted = set(todo)
        packet.rows = [row for row in packet.rows if row.position in wanted]
        with self._metrics.timed("generate"):
            yield from self._run(packet, generation, finished, give_back)

    def _until_durable(self, packet: Packet, answered: set[int], seconds: float) -> None:
        """The next suspect may kill this process before Ray has heard that this one has ended, or before its answers
        are durable: it would be blamed, and after three times be given up, for having run just before a bad one."""
        deadline = time.monotonic() + seconds
        while answered.intersection(self._ledger.begin(packet.session, packet.shard_id, self._name) or ()):
            if time.monotonic() > deadline:
                return
            time.sleep(_POLL_S)

    def _stand_aside(self, packet: Packet, gone: EngineError | ConfigError, begun: bool) -> None:
        """This replica has no engine. Its shards go to the others; without another the reason ends the session.

        Ray Data cannot let one actor of a pool go: an actor that ends fails the execution. So it stays, and keeps its
        places occupied for some seconds each, or the idlest replica would be sent every shard there is.
        """
        if not begun:
            self._ledger.release(packet.session, (packet.shard_id,))
        if self._presence.alone():
            raise gone
        self._keeper.rest()

    def _run(self, packet: Packet, generation: int, finished: Losses, give_back: GiveBack) -> Iterator[Packet]:
        """The shard's rows as they finish, in a few packets: at the end, and every `_FLUSH_S` before it."""
        tasks = [self._keeper.submit(self._rows(packet, rows, finished)) for rows in _same(packet.rows)]
        part = packet.load / max(len(packet.rows), 1)
        answered: set[int] = set()
        ready: list[Row] = []
        lost: EngineError | None = None
        flush_at = time.monotonic() + _FLUSH_S
        for _ in range(len(packet.rows)):
            while (row := _get(finished, flush_at - time.monotonic() if ready else None)) is None:
                yield replace(packet, rows=ready)
                ready, flush_at = [], time.monotonic() + _FLUSH_S
            if isinstance(row, EngineError):
                lost = row
                break
            give_back(part)
            ready.append(row)
            answered.add(row.position)
        if ready:
            yield replace(packet, rows=ready)
        if lost is not None:
            self._until_durable(packet, answered, _BLAME_S)
            self._engine_died(packet, generation, lost, tasks)

    async def _rows(self, packet: Packet, rows: list[Row], finished: Losses) -> None:
        """Rows that ask the same: the first runs, its answer is that of all."""
        first, *others = rows
        if lost := await self._row(packet, first):
            finished.put(lost)
            return
        for row in others:
            row.payload, row.error, row.deduplicated = first.payload, first.error, first.error is None
        for row in rows:
            finished.put(row)

    async def _row(self, packet: Packet, row: Row) -> EngineError | None:
        """Why its engine was lost, if it was."""
        if row.error is None:
            assert row.payload is not None
            try:
                request_id = f"{packet.batch_id}-{row.row}-{packet.shard_id}"
                row.payload = await self._keeper.generate(row.payload, request_id, packet.rank, packet.cache_salt)
            except RowError as error:
                row.payload, row.error = None, error
            except EngineError as error:
                return error
            except Exception as error:  # one row met a bug of the engine's front end: its neighbours go on
                row.payload = None
                row.error = RowError("internal_error", f"{type(error).__name__}: {error}", status=500)
        return None

    def _engine_died(self, packet: Packet, generation: int, error: EngineError, tasks: list[Future[None]]) -> None:
        for task in tasks:
            task.cancel()
        error = self._keeper.lost.get(generation, error)
        code = "engine_timeout" if error.code == "engine_timeout" else "engine_crashed"
        told = fields(batch=packet.batch_id, shard=packet.shard_id, code=code, rows=len(packet.rows))
        log.warning("the engine was lost while a shard ran", extra=told)
        self._ledger.crash(packet.session, (packet.shard_id,), str(error), code=code)
        self._keeper.replace(generation, error)


def _same(rows: list[Row]) -> list[list[Row]]:
    """The rows that ask the same, together."""
    groups: dict[int, list[Row]] = {}
    for row in rows:
        groups.setdefault(row.position if row.same_as is None else row.same_as, []).append(row)
    return list(groups.values())


def _get(finished: Losses, timeout: float | None) -> Row | EngineError | None:
    """The next finished row; None when `timeout` seconds pass first."""
    try:
        found: Row | EngineError = finished.get(timeout=None if timeout is None else max(timeout, 0.0))
        return found
    except queue.Empty:
        return None
