"""One run of one contender: a fresh process, watched from outside, and its figures."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from contenders.gate import HELD
from contenders.task import Task

from measure import probe
from measure.figures import Records, figures
from measure.gpu import GpuSampler
from measure.process_tree import ProcessTree
from measure.scheduler_log import read_scheduler

BENCHMARKS = Path(__file__).parents[1]
SCRIPTS = {
    "raw": "contenders.raw",
    "run-batch": "contenders.run_batch",
    "ray-data-llm": "contenders.ray_data_llm",
    "lsi": "contenders.lsi",
}
_ENVIRONMENT = {
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "TOKENIZERS_PARALLELISM": "false",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
    "HF_HUB_OFFLINE": "1",
}


def run_once(contender: str, task: Task, *, scheduler: bool, limit_s: float, held: bool = True) -> dict[str, Any]:
    """The figures of a run; `{"error": ...}` where it failed, answered too few rows, or took over `limit_s`.

    `held`: rows wait until the engine is up (contenders/gate.py), so that all that is done for them is counted.
    """
    out = Path(task.out)
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir(parents=True)
    _, engine = task.load()
    probe.install(out / "probe", scheduler=scheduler)
    environment = _environment(out, engine.env) | {HELD: str(int(held))}
    with (out / "log.txt").open("wb") as log:
        launched = time.time()
        process = subprocess.Popen(
            [sys.executable, "-m", SCRIPTS[contender], str(task.save())],
            stdout=log,
            stderr=subprocess.STDOUT,
            stdin=subprocess.DEVNULL,
            env=environment,
            cwd=out,
        )
        with GpuSampler() as gpu, ProcessTree(process.pid) as tree:
            try:
                code = _wait(process, limit_s)
            finally:  # an interrupted benchmark leaves no engine behind
                exited = time.time()
                tree.kill_rest()
    if code != 0:
        return {"error": f"exit code {code}, see {out / 'log.txt'}: {_last_line(out / 'log.txt')}"}
    answers = json.loads((out / "answers.json").read_text())
    answers = [(at, count) for at, count in answers if count]
    if (answered := sum(count for _, count in answers)) != task.rows:
        return {"error": f"{answered} rows answered instead of {task.rows}, see {out / 'log.txt'}"}
    records = Records(launched, exited, probe.read_started(out), probe.read_rows(out), answers, read_scheduler(out))
    return figures(records, tree, gpu, engine.max_num_seqs)


def _environment(out: Path, engine: dict[str, str]) -> dict[str, str]:
    paths = [str(out / "probe"), str(BENCHMARKS), str(BENCHMARKS.parent), os.environ.get("PYTHONPATH", "")]
    return {
        **os.environ,
        **_ENVIRONMENT,
        **engine,
        "PYTHONPATH": os.pathsep.join(path for path in paths if path),
        probe.FOLDER: str(out),
    }


def _wait(process: subprocess.Popen[bytes], limit_s: float) -> int | str:
    try:
        return process.wait(limit_s)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
        return f"none after {limit_s:.0f} s"


def _last_line(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    return lines[-1][:300] if lines else "no output"
