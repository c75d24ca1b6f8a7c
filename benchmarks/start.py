"""How long from the command to the first answered row, with the model cached, against the engine's own start?

    python benchmarks/start.py [--model tiny|small|CONFIG] [--rows 64] [--repeat 3] [--dummy]

The engine's own start is the faster of raw's and run-batch's from the command to an engine that takes rows: importing
vLLM, loading the model, and nothing of ours. Here rows may be rendered while the engine starts. The bar: lsi's first
row is answered, and durable, within that start plus 10 s. Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import signal
import tempfile
from pathlib import Path
from statistics import median
from typing import Any

import workloads
import yaml
from contenders.task import Task
from measure import host
from measure.result import RESULTS, Line, conclude
from measure.runner import run_once
from peers import CONFIGS, engine_config, model_folder
from synthetic.text import words_per_token
from workloads import Scale, Workload

from lsi_ray.config import load_config

_BAR_S = 10.0
_ORDER = ("raw", "run-batch", "lsi")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="tiny", help="tiny, small, or the path of a config")
    parser.add_argument("--rows", type=int, default=64)
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--against", default=",".join(_ORDER), help="contenders, by commas")
    parser.add_argument("--dummy", action="store_true", help="load_format=dummy")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    described = host.describe()
    names = options.against.split(",")
    runs: dict[str, list[dict[str, Any]]] = {name: [] for name in names}
    with tempfile.TemporaryDirectory(prefix="lsi-start-") as folder:
        task = prepare(options.model, options.rows, Path(folder), dummy=options.dummy)
        for repeat in range(options.repeat):
            for name in names:
                own = task.into(Path(folder) / f"{name}-{repeat}")
                runs[name].append(run_once(name, own, scheduler=False, limit_s=600, held=False))
    failed = [run["error"] for done in runs.values() for run in done if "error" in run]
    if failed:
        raise SystemExit("\n".join(failed))
    lines = judge(runs, Path(options.model).stem)
    raise SystemExit(0 if conclude("start", lines, {"runs": runs}, described, options.results) else 1)


def prepare(model: str, rows: int, folder: Path, *, dummy: bool) -> Task:
    """T1 for that model, as a task without a folder of its own yet."""
    config = load_config(CONFIGS.get(model, Path(model)))
    arguments = config.model_dump()["engine"]["args"]
    weights = model_folder(arguments["model"], dummy=dummy)
    scale = Scale("cpu" if config.engine.gpus == 0 else "gpu", int(arguments["max_model_len"]))
    workload = Workload("T1", rows, scale, config.model, round(words_per_token(weights), 3))
    written = workloads.write(workload)
    (folder / "config.yaml").write_text(yaml.safe_dump(engine_config(config, workload, dummy=dummy)))
    media = str(written.folder.resolve())
    return Task(str(written.archive), str(written.lines), media, written.good, str(folder / "config.yaml"), str(folder))


def judge(runs: dict[str, list[dict[str, Any]]], model: str) -> list[Line]:
    def middle(name: str, *keys: str) -> float:
        return median(sum(run[key] for key in keys) for run in runs[name])

    own = {name: middle(name, "engine_up_s") for name in runs if name != "lsi"}
    first = {name: middle(name, "start_s", "first_row_s") for name in runs}
    fastest = min(own, key=lambda name: own[name])
    over = first["lsi"] - own[fastest]
    told = f"{first['lsi']:.1f} s; the engine's own start {own[fastest]:.1f} s ({fastest}): {over:+.1f} s"
    peers = ", ".join(f"{name} {seconds:.1f} s" for name, seconds in first.items() if name != "lsi")
    bar = f"the engine's own start + {_BAR_S:.0f} s"
    return [
        Line(f"command to first answered row, {model}, cached", told, bar, over <= _BAR_S),
        Line("the same, others", peers),
    ]


if __name__ == "__main__":
    main()
