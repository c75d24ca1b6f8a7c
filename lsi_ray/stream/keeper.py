"""One engine, kept running on an event loop of its own: started, watched, and replaced when it is lost.

Invariants: while an engine is being replaced nothing enters it; the processes of the old one are gone before the new
one loads; an engine that answers is never killed, however slow. One that cannot be started is tried again ever later:
what was wrong with the machine may pass, and meanwhile other replicas have its shards.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Coroutine, Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from lsi_ray.config import Config
from lsi_ray.engine import Payload, make_engine
from lsi_ray.errors import ConfigError, EngineError
from lsi_ray.stream.logs import fields
from lsi_ray.stream.ports import ReplicaState
from lsi_ray.stream.watchdog import Traffic, until_silent

log = logging.getLogger(__name__)

_T = TypeVar("_T")
_MAX_STARTS = 3
_REST_S = 10.0
_RETRY_S, _LONGEST_RETRY_S = 30.0, 600.0

Losses = queue.SimpleQueue[Any]
"""Where a shard listens for the EngineError that ends it."""


class Note(Protocol):
    def __call__(self, state: ReplicaState, detail: str, engine: dict[str, str]) -> None: ...


class Keeper:
    """`gone`: why there is no engine any more. `lost`: why each generation of it ended that the watchdog ended."""

    def __init__(self, config: Config, note: Note) -> None:
        self._config = config
        self._note = note
        self._replacing = threading.Lock()
        self._listeners: set[Losses] = set()
        self._traffic = Traffic()
        self._watch: Future[None] | None = None
        self._well = threading.Event()
        self._retry_at, self._retry_s = 0.0, _RETRY_S
        self.generation = 0
        self.gone: EngineError | ConfigError | None = None
        self.lost: dict[int, EngineError] = {}
        self._loop = asyncio.new_event_loop()
        threading.Thread(target=self._loop.run_forever, name="engine-loop", daemon=True).start()

    def start(self, tries: int = _MAX_STARTS) -> None:
        """Start a fresh engine. Raises its reason when the last try has failed, and is `gone`."""
        trouble = ""
        for attempt in range(1, tries + 1):
            self._tell("loading", trouble and f"attempt {attempt}, after: {trouble}")
            self._engine = make_engine(self._config)
            try:
                self.submit(self._engine.start()).result()
                break
            except (EngineError, ConfigError) as error:
                self.submit(self._engine.kill()).result()
                if attempt == tries or isinstance(error, ConfigError):
                    self._give_up(error)
                    raise
                trouble = str(error)
        self.generation += 1
        self.gone, self._retry_s = None, _RETRY_S
        self._well.set()
        self._traffic = Traffic()
        self._watch = self.submit(self._watch_over(self.generation))
        self._tell("ready", "")

    def settled(self) -> EngineError | ConfigError | None:
        """Waits while the engine is being replaced; the reason when it could not be."""
        if self.gone is None:
            with self._replacing:
                pass
        return self.gone

    def check(self) -> None:
        """Ask the engine, in which no row is, whether it lives. One that died of an earlier row, or of nothing (CUDA
        tells of an error at the next call), is replaced here, so that no row is blamed that never ran in it."""
        if self.settled() is not None:
            return
        generation = self.generation
        timeout_s = self._config.engine.hang_timeout_s
        try:
            self.submit(asyncio.wait_for(self._engine.ping(), timeout_s)).result()
        except EngineError as error:
            self.replace(generation, error)
        except TimeoutError:
            self.replace(generation, _silent(timeout_s))

    def rest(self) -> None:
        """Without an engine: wait some seconds for one, or be who tries to start it, where that is due."""
        if time.monotonic() < self._retry_at or not self._replacing.acquire(blocking=False):
            self._well.wait(_REST_S)
            return
        try:
            if self.gone is not None:
                with suppress(EngineError, ConfigError):  # `gone` says it
                    self.start(tries=1)
        finally:
            self._replacing.release()

    def _give_up(self, error: EngineError | ConfigError) -> None:
        self._well.clear()
        self.gone = error
        self._retry_at = time.monotonic() + self._retry_s
        self._retry_s = min(2 * self._retry_s, _LONGEST_RETRY_S)
        self._tell("failed", str(error))

    def replace(self, generation: int, error: EngineError) -> None:
        """Kill the engine and start another, unless somebody else has. What cannot start leaves `gone`."""
        with self._replacing:
            if self.gone is not None or generation != self.generation:
                return
            self._tell("restarting", str(error))
            if self._watch is not None:
                self._watch.cancel()
            self.submit(self._engine.kill()).result()
            # Shards that came between the watchdog's word and this: a killed vLLM need not say so to its last rows.
            self._tell_listeners(self.lost.get(generation, error))
            with suppress(EngineError, ConfigError):  # `gone` says it
                self.start()

    def submit(self, work: Coroutine[Any, Any, _T]) -> Future[_T]:
        return asyncio.run_coroutine_threadsafe(work, self._loop)

    @contextmanager
    def inside(self, losses: Losses) -> Iterator[int | None]:
        """The generation of the engine that the block's rows are for, None without an engine. `losses` is told when
        that engine is lost, which one that hangs does not say to its rows. Waits while it is being replaced."""
        generation = self._register(losses)
        try:
            yield generation
        finally:
            self._listeners.discard(losses)

    def _register(self, losses: Losses) -> int | None:
        if self.gone is not None:  # the lock may be held by a start that takes minutes
            return None
        with self._replacing:
            if self.gone is not None:
                return None
            self._listeners.add(losses)
            return self.generation

    def _tell_listeners(self, error: EngineError) -> None:
        for losses in list(self._listeners):
            losses.put(error)

    async def generate(self, rendered: Payload, request_id: str, rank: int, cache_salt: str) -> Payload:
        """On the engine's loop; raises as `Engine.generate`."""
        traffic = self._traffic
        traffic.entered += 1
        try:
            return await self._engine.generate(rendered, request_id, rank, cache_salt)
        finally:
            traffic.left += 1

    async def _watch_over(self, generation: int) -> None:
        timeout_s = self._config.engine.hang_timeout_s
        try:
            await until_silent(self._engine.ping, self._traffic, timeout_s)
        except EngineError:
            return  # it is dead, and so its rows say themselves
        self.lost[generation] = _silent(timeout_s)
        self._tell_listeners(self.lost[generation])

    def _tell(self, state: ReplicaState, detail: str) -> None:
        level = logging.INFO if state in ("loading", "ready") else logging.WARNING
        log.log(level, "engine %s", state, extra=fields(generation=self.generation, reason=detail))
        engine = getattr(self, "_engine", None)
        self._note(state, detail, engine.describe() if engine else {})


def _silent(timeout_s: float) -> EngineError:
    return EngineError(f"the engine gave no sign of life for {timeout_s:g} s", code="engine_timeout")
