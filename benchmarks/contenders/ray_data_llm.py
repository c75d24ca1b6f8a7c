"""`ray.data.llm`: the chat pipeline of its documentation, tuned as its authors advise (small batches, many at once).

16 rows a batch and twice `max_num_seqs` rows in flight was their best of five settings (ray#52634). Its CPU stages may
grow to a quarter of the cores each. Workers run at nice 0, as ours do (Ray's default of 15 would only slow it down
here). A row counts as answered when it leaves the last stage; nothing is written.
"""

from __future__ import annotations

import json
import math
import os
import sys
import time
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from contenders.gate import wait_for_engine
from contenders.task import Task, peer_arguments

_BATCH_ROWS = 16


def main(task: Task) -> None:
    os.environ.setdefault("RAY_worker_niceness", "0")
    import ray

    _, engine = task.load()
    # CPUs are logical: each of its stages has to find a place.
    ray.init(num_cpus=max(os.cpu_count() or 1, 6), include_dashboard=False, log_to_driver=False)
    processor = _processor(task, engine.args["model"], engine)
    lines = [json.loads(line) for line in Path(task.lines).read_text().splitlines()]
    rows = [
        {
            "number": number,
            "media": task.has_media,
            "messages": one["body"]["messages"],
            "max_tokens": one["body"]["max_tokens"],
        }
        for number, one in enumerate(lines)
    ]
    dataset = ray.data.from_items(rows, override_num_blocks=math.ceil(len(rows) / _BATCH_ROWS))
    answers = []
    for batch in processor(dataset).iter_batches(batch_size=None, batch_format="numpy", prefetch_batches=4):
        answers += [(float(at), 1) for at in batch["answered_at"]]
    task.answered(sorted(answers))
    ray.shutdown()


def _processor(task: Task, model: str, engine: Any) -> Any:
    from ray.data.llm import build_processor, vLLMEngineProcessorConfig

    arguments = {name: value for name, value in peer_arguments(task, engine).items() if name != "model"}
    pool = {"enabled": True, "concurrency": max(1, (os.cpu_count() or 1) // 4)}
    prepare: dict[str, Any] | bool = False
    if task.has_media:
        arguments["allowed_local_media_path"] = task.media
        prepare = {
            **pool,
            "model_config_kwargs": {"allowed_local_media_path": task.media}
            | {name: arguments[name] for name in ("limit_mm_per_prompt", "media_io_kwargs") if name in arguments},
            "chat_template_content_format": "openai",
        }
    settings = vLLMEngineProcessorConfig(
        model_source=model,
        engine_kwargs=arguments,
        batch_size=_BATCH_ROWS,
        max_concurrent_batches=max(8, math.ceil(2 * engine.max_num_seqs / _BATCH_ROWS)),
        concurrency=1,
        prepare_multimodal_stage=prepare,
        chat_template_stage={**pool, "chat_template_kwargs": engine.chat_template_kwargs or None},
        tokenize_stage=pool,
        detokenize_stage=pool,
        log_engine_metrics=False,
        placement_group_config={"bundles": [{"CPU": 1} if engine.device == "cpu" else {"CPU": 1, "GPU": 1}]}
        if engine.gpus <= 1
        else None,
    )
    return build_processor(settings, preprocess=_preprocess, postprocess=_postprocess)


def _preprocess(row: dict[str, Any]) -> dict[str, Any]:
    if row["number"] >= 2 * _BATCH_ROWS:  # blocks of 15 rows: a first batch of 16 takes two of them
        wait_for_engine()
    if row["media"]:
        _find_chat_utils()
    params = {"max_tokens": int(row["max_tokens"]), "temperature": 0.0, "ignore_eos": True, "detokenize": False}
    return {"messages": row["messages"], "sampling_params": params}


def _find_chat_utils() -> None:
    """Ray 2.60's media stage, in one process with `_preprocess`, imports a module that vLLM 0.32 has moved."""
    old, new = "vllm.entrypoints.chat_utils", "vllm.renderers.chat_utils"
    if old not in sys.modules and find_spec(old) is None:
        sys.modules[old] = import_module(new)


def _postprocess(row: dict[str, Any]) -> dict[str, Any]:
    return {"text": row["generated_text"], "answered_at": time.time()}


if __name__ == "__main__":
    main(Task.from_command_line())
