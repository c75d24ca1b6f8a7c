"""What a contender is told, and what it tells back."""

from __future__ import annotations

import json
import sys
from dataclasses import asdict, dataclass
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


def peer_arguments(engine: VllmEngine) -> dict[str, Any]:
    """The engine arguments of a peer: ours, without what lsi sets only because it renders in another process."""
    arguments = {"enable_prefix_caching": True, "disable_log_stats": True, **engine.args}
    if engine.media_io_kwargs:
        arguments["media_io_kwargs"] = engine.media_io_kwargs
    return arguments
