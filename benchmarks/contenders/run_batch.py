"""`vllm run-batch`, unmodified: its own parser and main, with a clock at its progress tracker.

A row counts as answered when its response is made, which flatters it: the file is written when all are.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from importlib import import_module
from pathlib import Path
from typing import Any

from contenders.task import Answers, Task, peer_arguments

_PLACES = ("vllm.entrypoints.launchers.run_batch", "vllm.entrypoints.openai.run_batch")  # 0.32 on; before


def main(task: Task) -> None:
    config, engine = task.load()
    module = _module()
    answers: Answers = []
    completed = module.BatchProgressTracker.completed

    def timed(self: Any) -> None:
        answers.append((time.time(), 1))
        completed(self)

    module.BatchProgressTracker.completed = timed
    output = Path(task.out) / "run_batch.jsonl"
    flags: dict[str, Any] = {"input-file": task.lines, "output-file": str(output), "served-model-name": config.model}
    flags |= {"allowed-local-media-path": task.media, **peer_arguments(task, engine)}
    if engine.tool_call_parser:
        flags |= {"tool-call-parser": engine.tool_call_parser, "enable-auto-tool-choice": True}
    if engine.reasoning_parser:
        flags["reasoning-parser"] = engine.reasoning_parser
    if engine.chat_template_kwargs:
        flags["default-chat-template-kwargs"] = engine.chat_template_kwargs
    sys.argv = ["run-batch", *_command_line(flags)]
    asyncio.run(module.main(module.parse_args()))
    task.answered(answers[-_good(output) :])


def _module() -> Any:
    for place in _PLACES:
        try:
            module = import_module(place)
        except ModuleNotFoundError:
            continue
        if hasattr(module, "BatchProgressTracker"):
            return module
    raise SystemExit(f"this vLLM has no run-batch in {', '.join(_PLACES)}")


def _command_line(flags: dict[str, Any]) -> list[str]:
    """`{"max_num_seqs": 64, "enforce_eager": True}` as `--max-num-seqs 64 --enforce-eager`."""
    words = []
    for name, value in flags.items():
        flag = name.replace("_", "-")
        if isinstance(value, bool):
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            words += [f"--{flag}", json.dumps(value) if isinstance(value, (dict, list)) else str(value)]
    return words


def _good(output: Path) -> int:
    return sum(not json.loads(line)["error"] for line in output.read_text().splitlines())


if __name__ == "__main__":
    main(Task.from_command_line())
