"""The generate stage: one engine replica in one Ray actor. Rows of many shards run together, and leave as they come.

Ray Data's own async UDFs hold all of a task's output until the task ends, so this is a plain generator that runs in as
many threads as shards are in flight, over one event loop that owns the engine.

Invariants: a shard runs only after `begin` (so a second delivery of its block is noticed); an engine that dies ends the
attempt of the shards in it and of no others; a suspect shard runs alone.
"""

from __future__ import annotations

import asyncio
import os
import queue
import socket
import threading
import time
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any, TypeVar

import pyarrow as pa

from lsi_ray.config import Config
from lsi_ray.engine import make_engine
from lsi_ray.errors import ConfigError, EngineError, RowError
from lsi_ray.stream.packet import Packet, Row, from_block, to_block
from lsi_ray.stream.ports import StreamLedger
from lsi_ray.stream.render import prepare_process

_T = TypeVar("_T")
_FLUSH_S = 20.0  # a long row holds the finished rows of its shard back no longer than this
_MAX_STARTS = 3


class Generate:
    def __init__(self, config: Config, ledger: StreamLedger) -> None:
        prepare_process(config)
        self._ledger = ledger
        self._config = config
        self._name = f"{socket.gethostname()}-{os.getpid()}"
        self._gate = Gate()
        self._restart = threading.Lock()
        self._generation = 0
        self._gone: EngineError | ConfigError | None = None
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True).start()
        self._start_engine()

    def __call__(self, block: pa.Table) -> Iterator[pa.Table]:
        (packet,) = from_block(block)
        with self._gate.alone() if packet.exclusive else self._gate.shared():
            self._wait_for_engine()
            todo = self._ledger.begin(packet.session, packet.shard_id, self._name)
            if todo is None:
                return
            wanted = set(todo)
            packet.rows = [row for row in packet.rows if row.position in wanted]
            yield from map(to_block, self._run(packet))

    def _wait_for_engine(self) -> None:
        """While it restarts nothing begins; when it could not, the reason ends this replica's tasks."""
        with self._restart:
            if self._gone is not None:
                raise self._gone

    def _run(self, packet: Packet) -> Iterator[Packet]:
        """The shard's rows as they finish, in a few packets: at the end, and every `_FLUSH_S` before it."""
        generation = self._generation
        finished: queue.SimpleQueue[Row | EngineError] = queue.SimpleQueue()
        tasks = [asyncio.run_coroutine_threadsafe(self._row(packet, row, finished), self._loop) for row in packet.rows]
        ready: list[Row] = []
        flush_at = time.monotonic() + _FLUSH_S
        for _ in range(len(tasks)):
            while (row := _get(finished, flush_at - time.monotonic() if ready else None)) is None:
                yield replace(packet, rows=ready)
                ready, flush_at = [], time.monotonic() + _FLUSH_S
            if isinstance(row, EngineError):
                self._engine_died(packet, generation, row, tasks)
                break
            ready.append(row)
        if ready:
            yield replace(packet, rows=ready)

    async def _row(self, packet: Packet, row: Row, finished: queue.SimpleQueue[Row | EngineError]) -> None:
        if row.error is None:
            assert row.payload is not None
            try:
                request_id = f"{packet.batch_id}-{row.row}-{packet.shard_id}"
                row.payload = await self._engine.generate(row.payload, request_id, packet.rank)
            except RowError as error:
                row.payload, row.error = None, error
            except EngineError as error:
                finished.put(error)
                return
            except Exception as error:  # one row met a bug of the engine's front end: its neighbours go on
                row.payload = None
                row.error = RowError("internal_error", f"{type(error).__name__}: {error}", status=500)
        finished.put(row)

    def _engine_died(self, packet: Packet, generation: int, error: EngineError, tasks: list[Any]) -> None:
        for task in tasks:
            task.cancel()
        self._ledger.crash(packet.session, (packet.shard_id,), str(error))
        with self._restart:
            if self._gone is None and generation == self._generation:
                self._note("restarting", str(error))
                self._on_loop(self._engine.stop())
                self._start_engine()
        if self._gone is not None:
            raise self._gone

    def _start_engine(self) -> None:
        """Start a fresh engine. Raises EngineError after `_MAX_STARTS` failures: the stream ends with the reason."""
        for attempt in range(1, _MAX_STARTS + 1):
            self._note("loading", f"attempt {attempt}" if attempt > 1 else "")
            self._engine = make_engine(self._config)
            try:
                self._on_loop(self._engine.start())
                break
            except (EngineError, ConfigError) as error:
                self._note("failed", str(error))
                if attempt == _MAX_STARTS or isinstance(error, ConfigError):
                    self._gone = error
                    raise
                self._on_loop(self._engine.stop())
        self._generation += 1
        self._note("ready", "")

    def _note(self, state: Any, detail: str) -> None:
        describe = getattr(self, "_engine", None)
        self._ledger.note_replica(self._name, state, detail, describe.describe() if describe else {})

    def _on_loop(self, work: Coroutine[Any, Any, _T]) -> _T:
        return asyncio.run_coroutine_threadsafe(work, self._loop).result()


class Gate:
    """Many shards may be in the engine together, or one suspect alone. A waiting suspect holds newcomers back."""

    def __init__(self) -> None:
        self._condition = threading.Condition()
        self._inside = 0
        self._alone = False
        self._waiting = 0

    @contextmanager
    def shared(self) -> Iterator[None]:
        with self._condition:
            self._condition.wait_for(lambda: not self._alone and not self._waiting)
            self._inside += 1
        try:
            yield
        finally:
            with self._condition:
                self._inside -= 1
                self._condition.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._condition:
            self._waiting += 1
            self._condition.wait_for(lambda: not self._alone and not self._inside)
            self._waiting -= 1
            self._alone = True
        try:
            yield
        finally:
            with self._condition:
                self._alone = False
                self._condition.notify_all()


def _get(finished: queue.SimpleQueue[Row | EngineError], timeout: float | None) -> Row | EngineError | None:
    """The next finished row; None when `timeout` seconds pass first."""
    try:
        return finished.get(timeout=None if timeout is None else max(timeout, 0.0))
    except queue.Empty:
        return None
