"""lsi-ray beside its peers: same machine, model, engine arguments and rows; cold prefix cache, interleaved, repeated.

    python benchmarks/peers.py                       the set of `make bench`
    python benchmarks/peers.py -w T1 -n 1000 --model small --against raw,run-batch,lsi --repeat 3
    python benchmarks/peers.py -w I1 -n 2000 --model configs/qwen2.5-vl-7b.yaml --dummy     on a GPU host

Workloads: see workloads.py. Contenders: see contenders/; `raw` is the limit. Each run is a fresh process; what
counts and what does not is in measure/figures.py. Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import shutil
import signal
import tempfile
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import workloads
import yaml
from contenders.task import Task
from measure import host
from measure.report import Runs, show, summarise
from measure.runner import SCRIPTS, run_once
from rich.console import Console
from synthetic.text import words_per_token
from workloads import Scale, Workload, Written

from lsi_ray.config import Config, VllmEngine, load_config
from lsi_ray.engine.vllm.tiny import ensure_model

RESULTS = Path(__file__).parent / "results"
CONFIGS = {name: Path(__file__).parents[1] / "configs" / f"{name}.yaml" for name in ("tiny", "small")}


@dataclass(frozen=True, slots=True)
class Case:
    workload: str
    rows: int
    model: str
    repeat: int
    groups: int = 64
    against: tuple[str, ...] = tuple(SCRIPTS)
    dummy: bool = False
    limit_s: float = 1200.0


# About 25 minutes on 2 quiet cores: a run takes 30 to 60 s before its first row, and 10 to 30 s after it.
BENCH_SET = (
    Case("T1", 1000, "tiny", repeat=2),
    Case("T1", 100, "small", repeat=1),
    Case("T2", 800, "tiny", repeat=1, groups=512),
    Case("T4", 300, "tiny", repeat=1),
    Case("I1", 150, "tiny", repeat=1),
)


def run_case(case: Case, console: Console) -> bool:
    """All runs of a case, the table, and its JSON. Whether every run answered every row."""
    config_path = CONFIGS.get(case.model, Path(case.model))
    config = load_config(config_path)
    if not isinstance(config.engine, VllmEngine):
        raise SystemExit(f"{config_path}: the benchmark compares vLLM engines")
    scale = Scale("cpu" if config.engine.device == "cpu" else "gpu", int(config.engine.args["max_model_len"]))
    rate = words_per_token(ensure_model(config.engine.args["model"]))
    workload = Workload(case.workload, case.rows, scale, config.model, round(rate, 3), case.groups)
    console.print(f"{case.workload}: writing {case.rows} rows")
    written = workloads.write(workload)
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-bench-") as folder:
        shared = Path(folder) / "config.yaml"
        shared.write_text(yaml.safe_dump(engine_config(config, workload, dummy=case.dummy)))
        runs = _run_all(case, written, shared, Path(folder), console, scheduler=scale.gpu)
        _keep_logs(runs, Path(folder))
    summary = summarise(runs)
    path = _save({"case": asdict(case), "workload": asdict(workload), "host": described}, runs, summary)
    hardware = described["hardware"]
    gpus = ", ".join(hardware["gpus"])
    title = f"{case.workload}, {case.rows} rows, {case.model}, {case.repeat} repeats; {hardware['cores']} cores {gpus}"
    show(title, summary, console)
    console.print(str(path))
    return not any(entry["errors"] for entry in summary.values())


def engine_config(config: Config, workload: Workload, *, dummy: bool) -> dict[str, Any]:
    """The config that every contender gets: models of our own as folders, T2's small cache, weights or none."""
    assert isinstance(config.engine, VllmEngine)
    data = config.model_dump(mode="json")
    arguments = data["engine"]["args"]
    arguments["model"] = ensure_model(arguments["model"])
    if dummy:
        arguments["load_format"] = "dummy"
    if tokens := workloads.cache_tokens(workload, config.engine.max_num_seqs):
        arguments["block_size"] = 32 if config.engine.device == "cpu" else 16
        arguments["num_gpu_blocks_override"] = -(-tokens // arguments["block_size"])
    return data


def _run_all(case: Case, written: Written, config: Path, folder: Path, console: Console, *, scheduler: bool) -> Runs:
    """Repeat by repeat, each time beginning with another contender: drift of the machine falls on all alike."""
    runs: Runs = {name: [] for name in case.against}
    for repeat in range(case.repeat):
        start = repeat % len(case.against)
        for name in case.against[start:] + case.against[:start]:
            task = Task(
                archive=str(written.archive),
                lines=str(written.lines),
                media=str(written.folder.resolve()),
                rows=written.good,
                config=str(config),
                out=str(folder / f"{name}-{repeat}"),
            )
            done = run_once(name, task, scheduler=scheduler, limit_s=case.limit_s)
            runs[name].append(_checked(done, written))
            rate = f"{done['rows_per_s']:.1f} rows/s" if "rows_per_s" in done else done["error"]
            console.print(f"  repeat {repeat + 1}, {name}: {rate}", soft_wrap=True, highlight=False)
    return runs


def _checked(done: dict[str, Any], written: Written) -> dict[str, Any]:
    """A run that did other work than asked for is no result."""
    made = done.get("output_tokens", written.output_tokens)
    if made != written.output_tokens:
        return {"error": f"{made} output tokens instead of {written.output_tokens}"}
    return done


def _keep_logs(runs: Runs, folder: Path) -> None:
    """The logs of failed runs survive the temporary folder."""
    for name, all_of_it in runs.items():
        for repeat, run in enumerate(all_of_it):
            log = folder / f"{name}-{repeat}" / "log.txt"
            if "error" in run and log.exists():
                kept = Path(tempfile.gettempdir()) / f"lsi-bench-{name}-{time.time():.0f}.log"
                shutil.copyfile(log, kept)
                run["error"] = run["error"].replace(str(log), str(kept))


def _save(about: dict[str, Any], runs: Runs, summary: dict[str, Any]) -> Path:
    RESULTS.mkdir(exist_ok=True)
    case = about["case"]
    model = Path(case["model"]).stem
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = RESULTS / f"peers-{case['workload']}-{model}-{case['rows']}-{stamp}.json"
    path.write_text(json.dumps({**about, "summary": summary, "runs": runs}, indent=1) + "\n")
    return path


def _case(arguments: argparse.Namespace) -> Case:
    against = tuple(arguments.against.split(","))
    if unknown := set(against) - SCRIPTS.keys():
        raise SystemExit(f"--against: {', '.join(sorted(unknown))} is none of {', '.join(SCRIPTS)}")
    return Case(
        arguments.workload,
        arguments.rows,
        arguments.model,
        arguments.repeat,
        arguments.groups,
        against,
        arguments.dummy,
        arguments.limit,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", choices=workloads.NAMES, help="default: the set of `make bench`")
    parser.add_argument("-n", "--rows", type=int, default=1000)
    parser.add_argument("--model", default="tiny", help="tiny, small, or the path of a config")
    parser.add_argument("--against", default=",".join(SCRIPTS), help="contenders, by commas")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--groups", type=int, default=64, help="T2: groups of rows with one system prompt each")
    parser.add_argument("--dummy", action="store_true", help="load_format=dummy: full-size models without weights")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for one run")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if Console().is_terminal else 200)
    cases = (_case(arguments),) if arguments.workload else BENCH_SET
    raise SystemExit(0 if all([run_case(case, console) for case in cases]) else 1)


if __name__ == "__main__":
    main()
