"""Generation: one vLLM engine. Rendered input in, token ids out; nothing else runs in its process."""

from __future__ import annotations

import asyncio
import multiprocessing
import os
from collections.abc import Coroutine
from multiprocessing.process import BaseProcess
from typing import Any

import vllm

from lsi_ray.config import VllmEngine
from lsi_ray.engine import Payload
from lsi_ray.engine.vllm.config import vllm_config
from lsi_ray.engine.vllm.fate import REPLICA, end_for_good
from lsi_ray.engine.vllm.imports import AsyncLLM, EngineDeadError, PoolingParams
from lsi_ray.engine.vllm.renderer import REFUSALS, refusal
from lsi_ray.engine.vllm.wire import Choice, Generated, Output, Prompt, Rendered, dumps, loads
from lsi_ray.errors import ConfigError, EngineError, RowError

# A detokenizer needs only the last few prompt tokens to join the answer on (vLLM itself reads 5 back), a reasoning
# parser those in which a template opens or closes the reasoning.
_TAIL = 32


class VllmReplica:
    """Implements `lsi_ray.engine.Engine` with AsyncLLM, whose EngineCore is a process of its own.

    A row's rank is vLLM's `priority`. With `scheduling_policy: priority` (else it is ignored) the v1 scheduler keeps
    waiting requests in a heap by (priority, arrival time, id), smallest first, so equal ones stay first come, first
    served. A waiting request does not interrupt running ones; where the KV cache runs out, the largest (priority,
    arrival time) is preempted instead of the last scheduled.
    """

    def __init__(self, engine: VllmEngine, stat_loggers: list[Any] | None = None) -> None:
        """`stat_loggers`: vLLM's factories of such; with them the engine collects statistics, at some cost."""
        self._engine = engine
        self._stat_loggers = stat_loggers
        self._llm: AsyncLLM | None = None
        self._processes: list[BaseProcess] = []

    async def start(self) -> None:
        os.environ[REPLICA] = str(os.getpid())
        before = set(multiprocessing.active_children())
        try:
            self._llm = AsyncLLM.from_vllm_config(
                vllm_config(self._engine),
                disable_log_stats=self._stat_loggers is None,
                stat_loggers=self._stat_loggers,
            )
        except ConfigError:
            raise
        except Exception as error:  # vLLM raises whatever its workers died of; all of it means "cannot start"
            raise EngineError(f"vLLM could not start: {error}", code="engine_start_failed") from error
        finally:
            self._processes = [child for child in multiprocessing.active_children() if child not in before]

    async def generate(self, rendered: Payload, request_id: str, rank: int, cache_salt: str) -> Payload:
        work: Rendered = loads(rendered)
        if cache_salt:
            for prompt in work.prompts:
                prompt.input["cache_salt"] = cache_salt
        try:
            outputs = await _all(
                [self._run(prompt, f"{request_id}-{number}", rank) for number, prompt in enumerate(work.prompts)]
            )
        except EngineDeadError as error:
            raise EngineError(f"vLLM's engine died: {error}") from error
        except RowError:
            raise
        except REFUSALS as error:
            raise refusal(error) from None
        generated = Generated(work.url, tuple(outputs), work.prompts[0].params, work.request)
        return dumps(generated)

    async def _run(self, prompt: Prompt, request_id: str, priority: int) -> Output:
        llm = self._llm
        if llm is None:  # another row's failure has just ended it
            raise EngineError("vLLM's engine is not running")
        if isinstance(prompt.params, PoolingParams):
            return await self._encode(llm, prompt, request_id, priority)
        stream = llm.generate(prompt.input, prompt.params, request_id, priority=priority, **prompt.options)
        outputs = [out async for out in stream]
        return _output(outputs[-1])

    async def _encode(self, llm: Any, prompt: Prompt, request_id: str, priority: int) -> Output:
        *_, final = [out async for out in llm.encode(prompt.input, prompt.params, request_id, priority=priority)]
        vector = final.outputs.data.float().numpy()
        return Output(len(final.prompt_token_ids), [], int(final.num_cached_tokens or 0), embedding=vector)

    async def ping(self) -> None:
        """EngineCore answers `is_sleeping`, two flags, from its busy loop between two steps. One that waits in a
        collective for a worker that hangs does not; vLLM itself ends such a one after 300 s by default
        (VLLM_EXECUTE_MODEL_TIMEOUT_SECONDS)."""
        if self._llm is None:
            raise EngineError("vLLM's engine is not running")
        try:
            await self._llm.is_sleeping()
        except EngineDeadError as error:
            raise EngineError(f"vLLM's engine died: {error}") from error

    async def kill(self) -> None:
        llm, self._llm = self._llm, None
        await asyncio.to_thread(end_for_good, self._processes)
        if llm is not None:
            llm.shutdown()

    def describe(self) -> dict[str, str]:
        return {"name": "vllm", "version": vllm.__version__, "device": self._engine.device}


async def _all(work: list[Coroutine[Any, Any, Output]]) -> list[Output]:
    """As `asyncio.gather`, but the first failure ends the others: a row of many prompts leaves none in the engine."""
    tasks = [asyncio.ensure_future(one) for one in work]
    try:
        return await asyncio.gather(*tasks)
    finally:
        for task in tasks:
            task.cancel()


def _output(final: Any) -> Output:
    """Raises RowError for a row that failed inside the engine, EngineError for one that the engine gave up."""
    reasons = {one.finish_reason for one in final.outputs}
    if "error" in reasons:
        raise RowError("engine_error", "the engine failed on this row", status=500)
    if "abort" in reasons:
        raise EngineError("vLLM's engine aborted a row, as it does when it ends")
    ids = final.prompt_token_ids or []
    choices = tuple(
        Choice(
            index=one.index,
            token_ids=list(one.token_ids),
            text=one.text,
            finish_reason=one.finish_reason,
            stop_reason=one.stop_reason,
            logprobs=one.logprobs,
        )
        for one in final.outputs
    )
    return Output(len(ids), list(ids[-_TAIL:]), int(final.num_cached_tokens or 0), choices)
