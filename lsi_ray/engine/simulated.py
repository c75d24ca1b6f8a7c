"""A simulated engine: a timing model whose answers are a pure function of the row.

For dry runs, load and fault tests. The answer names the custom_id and a digest of the body and of every media byte, so
a test can tell that the right row got the right file. With `allow_scripts`, a prompt may carry a fault.
"""

from __future__ import annotations

import asyncio
import hashlib
import heapq
import json
import os
import pickle
import re
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

from lsi_ray.archive.rows import Request
from lsi_ray.config import SimulatedEngine
from lsi_ray.engine import Answer, Payload, ReadMedia
from lsi_ray.errors import EngineError, RowError

_SCRIPT = re.compile(r"\[\[lsi:(crash|hang|slow|error|dead|oom)(?::(\d+))?\]\]")


@dataclass(frozen=True, slots=True)
class _Work:
    text: str
    url: str
    prompt_tokens: int
    completion_tokens: int
    script: str | None
    script_value: int


class SimulatedRenderer:
    def __init__(self, engine: SimulatedEngine, model: str) -> None:
        self._engine = engine
        self._model = model

    async def render(self, request: Request, read_media: ReadMedia, caller: str = "") -> bytes:
        del caller
        body = json.dumps(request.body, sort_keys=True)
        digest = hashlib.sha256(body.encode())
        for part in request.media:
            data = read_media(part)
            if not data:
                raise RowError("media_invalid", f"{part.member or 'data: URL'} is empty", param=part.param)
            digest.update(hashlib.sha256(data).digest())
        script = _SCRIPT.search(body) if self._engine.allow_scripts else None
        work = _Work(
            text=f"{request.custom_id} {digest.hexdigest()[:16]}",
            url=request.url,
            prompt_tokens=len(body) // 4 + 256 * len(request.media),
            completion_tokens=_completion_tokens(request.body),
            script=script.group(1) if script else None,
            script_value=int(script.group(2) or 0) if script else 0,
        )
        return pickle.dumps(work, protocol=5)


class SimulatedReplica:
    def __init__(self, engine: SimulatedEngine) -> None:
        self._engine = engine
        self._seats = _Seats(engine.max_num_seqs)
        self._up = False
        self._hung = False
        self._killed = asyncio.Event()

    async def start(self) -> None:
        await asyncio.sleep(self._engine.start_seconds)
        self._up = True

    async def generate(self, rendered: Payload, request_id: str, rank: int, cache_salt: str) -> bytes:  # noqa: ARG002
        await self.ping()
        assert isinstance(rendered, bytes)
        work: _Work = pickle.loads(rendered)
        async with self._seats.taken(rank):
            await self._act(work, request_id)
            if seconds := self._seconds(work):
                await asyncio.sleep(seconds)
            await self.ping()
        return rendered

    async def ping(self) -> None:
        if self._hung:
            await self._killed.wait()
        if not self._up:
            raise EngineError("the simulated engine is not running")

    async def kill(self) -> None:
        self._up = False
        self._killed.set()

    def describe(self) -> dict[str, str]:
        return {"name": "simulated", "version": "1", "device": "none"}

    def _seconds(self, work: _Work) -> float:
        engine = self._engine
        prefill = work.prompt_tokens / engine.prefill_tokens_per_second if engine.prefill_tokens_per_second else 0.0
        decode = work.completion_tokens / engine.tokens_per_second if engine.tokens_per_second else 0.0
        return prefill + decode

    async def _act(self, work: _Work, request_id: str) -> None:
        match work.script:
            case "crash":
                os._exit(137)
            case "oom":  # as the kernel ends a process when memory runs out
                os.kill(os.getpid(), signal.SIGKILL)
            case "dead":
                self._up = False
                raise EngineError(f"simulated engine died on {request_id}")
            case "hang":  # nothing in it moves any more, this row's neighbours neither
                self._hung = True
            case "slow":
                await asyncio.sleep(work.script_value / 1000)
            case "error":
                raise RowError("invalid_request", "simulated failure of one row")


class _Seats:
    """Places in the running batch; who waits for one is served by (rank, arrival)."""

    def __init__(self, free: int) -> None:
        self._free = free
        self._waiting: list[tuple[int, int, asyncio.Future[None]]] = []
        self._arrivals = 0

    @asynccontextmanager
    async def taken(self, rank: int) -> AsyncIterator[None]:
        if self._free:
            self._free -= 1
        else:
            await self._wait(rank)
        try:
            yield
        finally:
            self._give_up()

    async def _wait(self, rank: int) -> None:
        called = asyncio.get_running_loop().create_future()
        self._arrivals += 1
        heapq.heappush(self._waiting, (rank, self._arrivals, called))
        try:
            await called
        except asyncio.CancelledError:
            if called.done() and not called.cancelled():  # it was called in the moment in which it left
                self._give_up()
            raise

    def _give_up(self) -> None:
        while self._waiting:
            *_, called = heapq.heappop(self._waiting)
            if not called.done():
                called.set_result(None)
                return
        self._free += 1


class SimulatedFinisher:
    def __init__(self, model: str) -> None:
        self._model = model

    def finish(self, generated: Payload, request_id: str) -> Answer:
        assert isinstance(generated, bytes)
        work: _Work = pickle.loads(generated)
        usage = {
            "prompt_tokens": work.prompt_tokens,
            "completion_tokens": work.completion_tokens,
            "total_tokens": work.prompt_tokens + work.completion_tokens,
        }
        body = {"id": request_id, "created": 0, "model": self._model, **_content(work), "usage": usage}
        encoded = json.dumps(body, ensure_ascii=False).encode()
        return Answer(encoded, work.prompt_tokens, work.completion_tokens, cached_tokens=0)


def _content(work: _Work) -> dict[str, Any]:
    if work.url == "/v1/embeddings":
        vector = [byte / 255 for byte in hashlib.sha256(work.text.encode()).digest()[:8]]
        return {"object": "list", "data": [{"object": "embedding", "index": 0, "embedding": vector}]}
    choice: dict[str, Any] = {"index": 0, "finish_reason": "stop", "logprobs": None}
    if work.url == "/v1/completions":
        return {"object": "text_completion", "choices": [{**choice, "text": work.text}]}
    message = {"role": "assistant", "content": work.text}
    return {"object": "chat.completion", "choices": [{**choice, "message": message}]}


def _completion_tokens(body: dict[str, Any]) -> int:
    return int(body.get("max_completion_tokens") or body.get("max_tokens") or 16)
