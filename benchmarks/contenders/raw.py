"""The limit: `AsyncLLM.generate`, fed with everything already rendered, decoded and in memory.

Token ids in and out, one output a row, no detokenising; first come, first served (lsi's queue by priority costs
something); what was rendered is out of the garbage collector's sight. Nothing is parsed or written.
"""

from __future__ import annotations

import asyncio
import gc
import time
from typing import Any

from contenders.task import Answers, Task
from lsi_ray.archive.index import ArchiveIndex, index_tar, read_member
from lsi_ray.archive.rows import MediaRef, parse_row
from lsi_ray.batch_files import row_limits
from lsi_ray.config import Config
from lsi_ray.engine.vllm.config import set_environment, vllm_config
from lsi_ray.errors import RowError


async def main(task: Task) -> None:
    config, engine = task.load()
    set_environment(engine)
    work = await _render(task, config)
    from lsi_ray.engine.vllm.imports import AsyncLLM

    plain = engine.model_copy(update={"args": {"scheduling_policy": "fcfs", **engine.args}})
    llm = AsyncLLM.from_vllm_config(vllm_config(plain), disable_log_stats=True)
    gc.collect()
    gc.freeze()
    try:
        task.answered(await _generate(llm, work, window=4 * engine.max_num_seqs))
    finally:
        llm.shutdown()


async def _render(task: Task, config: Config) -> list[Any]:
    """The engine inputs and parameters of every row that can be rendered, in input order."""
    from lsi_ray.engine import make_renderer
    from lsi_ray.engine.vllm.wire import loads

    renderer, limits, work = make_renderer(config), row_limits(config), []
    with open(task.archive, "rb") as file:
        index = index_tar(file)
        for number, line in enumerate(read_member(file, index.jobs).splitlines()):
            try:
                request = parse_row(
                    line, row_index=number, line_number=number + 1, members=index.members, limits=limits
                )
                rendered = await renderer.render(request, lambda ref: _media(file, index, ref))
            except RowError:  # M1 has such rows
                continue
            (prompt,) = loads(rendered).prompts
            work.append(prompt)
    return work


def _media(file: Any, index: ArchiveIndex, ref: MediaRef) -> bytes:
    assert ref.member is not None
    return read_member(file, index.members[ref.member])


async def _generate(llm: Any, work: list[Any], window: int) -> Answers:
    """All rows, `window` of them in the engine: more than it can run, less than a queue of gigabytes of pixels."""
    answers: Answers = []
    numbers = iter(range(len(work)))

    async def worker() -> None:
        for number in numbers:
            prompt, work[number] = work[number], None
            async for _ in llm.generate(prompt.input, prompt.params, str(number), **prompt.options):
                pass
            answers.append((time.time(), 1))

    await asyncio.gather(*(worker() for _ in range(window)))
    return answers


if __name__ == "__main__":
    asyncio.run(main(Task.from_command_line()))
