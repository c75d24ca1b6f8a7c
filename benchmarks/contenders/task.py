"""What a contender is told, and what it tells back."""

from __future__ import annotations

import json
import os
import sys
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any

from lsi_ray.config import Config, VllmEngine, load_config

Answers = list[tuple[float, int]]
"""(time.time(), rows): so many good rows had their answers ready for the user at that time."""


@dataclass(frozen=True, slots=True)
class Task:
    archive: str
    """The tar: what lsi and raw read."""
    lines: str
    """The good rows with file:// URLs: what the peers read."""
    media: str
    """The folder that those URLs point into."""
    rows: int
    """Good rows."""
    config: str
    """A config of lsi, whose engine arguments every contender gets."""
    out: str
    """A folder for this run."""

    def into(self, out: Path) -> Task:
        """The same task with its own folder."""
        return replace(self, out=str(out))

    @property
    def has_media(self) -> bool:
        return any(True for _ in Path(self.media).glob("files/*"))

    def save(self) -> Path:
        path = Path(self.out) / "task.json"
        path.write_text(json.dumps(asdict(self)))
        return path

    @classmethod
    def from_command_line(cls) -> Task:
        return cls(**json.loads(Path(sys.argv[1]).read_text()))

    def load(self) -> tuple[Config, VllmEngine]:
        config = load_config(Path(self.config))
        assert isinstance(config.engine, VllmEngine), "the benchmark compares vLLM engines"
        return config, config.engine

    def answered(self, answers: Answers) -> None:
        (Path(self.out) / "answers.json").write_text(json.dumps(answers))


def peer_arguments(task: Task, engine: VllmEngine) -> dict[str, Any]:
    """The engine arguments of a peer: ours, without what lsi sets only because it renders in another process.

    On many cores media are prepared by several threads, as vLLM advises for vision models; by one, a GPU starves. A
    peer's processor cache keeps its default of 4 GiB, which serves I3; its vision encoder is data parallel, as ours.
    """
    arguments = {"enable_prefix_caching": True, "disable_log_stats": True, **engine.args}
    if int(engine.args.get("tensor_parallel_size", 1)) > 1:
        arguments.setdefault("mm_encoder_tp_mode", "data")
    threads = min(8, (os.cpu_count() or 1) // 4)
    if task.has_media and threads > 1 and _known("renderer_num_workers"):
        arguments.setdefault("renderer_num_workers", threads)
    if engine.media_io_kwargs:
        arguments["media_io_kwargs"] = engine.media_io_kwargs
    return arguments


def _known(argument: str) -> bool:
    from vllm.engine.arg_utils import AsyncEngineArgs

    return argument in {field.name for field in fields(AsyncEngineArgs)}
