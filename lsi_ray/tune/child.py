"""One candidate in a process of its own: `python -m lsi_ray.tune.child TASK.json`.

It starts the engine, measures, and writes what it measured. A standard input that ends is the sign that its parent has
ended: so does it.
"""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import msgspec

from lsi_ray.config import Config, SimulatedEngine, VllmEngine, parse_config
from lsi_ray.engine import Engine, make_engine, make_finisher
from lsi_ray.engine.load import Load
from lsi_ray.errors import ConfigError, EngineError
from lsi_ray.tune.candidate import SEATS
from lsi_ray.tune.feed import Fed, Feeder, rate, tokens
from lsi_ray.tune.measurement import Measurement
from lsi_ray.tune.sample import rendered


@dataclass(frozen=True, slots=True)
class Task:
    config: dict[str, Any]
    scratch: str
    """Where the sample is."""
    seconds: float
    """To measure for, once the engine is up."""
    render_s: float
    """For rendering the sample, where that is still to do."""
    beat: float
    """Rows per second that the best so far does; 0 for none."""
    out: str
    """Where the Measurement goes, as JSON."""
    phase: str
    """Where it says what it is doing, in words."""

    def doing(self, words: str) -> None:
        Path(self.phase).write_text(words)


Look = Callable[[], tuple[Load, dict[str, int | float]]]
"""The scheduler's load so far, and the arguments that it works with."""


async def measure(task: Task) -> Measurement:
    config = parse_config(task.config, source="the candidate")
    begun = time.monotonic()
    task.doing("rendering the sample, if that is still to do")
    rows = await rendered(Path(task.scratch), config, task.render_s)
    began = time.monotonic()
    task.doing("starting the engine")
    engine, look = _watched(config)
    try:
        await engine.start()
        started = time.monotonic()
        task.doing(f"the engine is up after {started - began:.0f} s; measuring with {len(rows):,} rows")
        feeder = Feeder(engine, rows, int(look()[1][SEATS]))
        fed = await feeder.run(task.seconds, task.beat)
        load, effective = look()
    except EngineError as error:
        return Measurement(failure=str(error), render_s=began - begun)
    finally:
        await engine.kill()
    done = Measurement(
        start_s=started - began,
        render_s=began - begun,
        gpus=config.engine.gpus,
        cut=fed.cut,
        load=load,
        effective=effective,
        engine=engine.describe(),
    )
    return _counted(done, config, feeder, fed)


def _counted(done: Measurement, config: Config, feeder: Feeder, fed: Fed) -> Measurement:
    if not fed.ends:
        return replace(done, failure=fed.refused or "no row ended in the time")
    window = feeder.window(fed, done.load.running_max)
    prompt, output = tokens(make_finisher(config), fed.generated[window.first : window.last])
    return replace(
        done,
        rows_per_s=rate(window),
        prompt_tokens_per_s=prompt / window.seconds,
        output_tokens_per_s=output / window.seconds,
        rows=window.last - window.first,
        seconds=window.seconds,
        short=window.short,
    )


def _watched(config: Config) -> tuple[Engine, Look]:
    if isinstance(config.engine, VllmEngine):
        from lsi_ray.engine.vllm.load import watched_replica

        return watched_replica(config.engine)
    assert isinstance(config.engine, SimulatedEngine)
    seats = config.engine.max_num_seqs
    return make_engine(config), lambda: (Load(), {SEATS: seats})


def _end_with_parent() -> None:
    """The engine's processes then end with this one (engine/vllm/fate.py)."""

    def wait() -> None:
        while os.read(0, 1):
            pass
        os.kill(os.getpid(), signal.SIGKILL)

    threading.Thread(target=wait, name="parent", daemon=True).start()


def main(path: Path) -> None:
    _end_with_parent()
    task = msgspec.json.decode(path.read_bytes(), type=Task)
    engine = parse_config(task.config, source="the candidate").engine
    if isinstance(engine, VllmEngine):
        from lsi_ray.engine.vllm.config import set_environment

        set_environment(engine)
    try:
        done = asyncio.run(measure(task))
    except ConfigError as error:  # an argument that this vLLM refuses
        done = Measurement(failure=str(error))
    unfinished = Path(f"{task.out}.tmp")
    unfinished.write_bytes(msgspec.json.encode(done))
    unfinished.replace(task.out)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
