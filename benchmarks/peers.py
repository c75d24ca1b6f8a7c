"""lsi-ray beside its peers: same machine, model, engine arguments and rows; cold prefix cache, interleaved, repeated.

    python benchmarks/peers.py -w T1 -n 1000 --model tiny
    python benchmarks/peers.py -w T1 -n 1000 --model small --against raw,run-batch,lsi --repeat 5
    python benchmarks/peers.py -w I1 -n 2000 --model configs/qwen2.5-vl-7b.yaml --dummy     on a GPU host

Workloads: see workloads.py. Contenders: see contenders/; `raw` is the limit. Each run is a fresh process; what
counts and what does not is in measure/figures.py. Results go to benchmarks/results/ as JSON; `results.py` makes the
table of all of them, `plots.py` the pictures, and `all.py` runs a set of cases within given minutes.
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
from huggingface_hub import try_to_load_from_cache
from measure import host
from measure.report import Runs, show, summarise
from measure.runner import SCRIPTS, run_once
from rich.console import Console
from synthetic.shapes import SHAPES, shape_folder
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
    results: str = str(RESULTS)


def run_case(case: Case, console: Console) -> bool:
    """All runs of a case, the table, and its JSON. Whether every run answered every row."""
    config_path = CONFIGS.get(case.model, Path(case.model))
    config = load_config(config_path)
    if not isinstance(config.engine, VllmEngine):
        raise SystemExit(f"{config_path}: the benchmark compares vLLM engines")
    folder = model_folder(config.engine.args["model"], dummy=case.dummy)
    scale = Scale("cpu" if config.engine.device == "cpu" else "gpu", int(config.engine.args["max_model_len"]))
    rate = words_per_token(folder)
    workload = Workload(case.workload, case.rows, scale, config.model, round(rate, 3), case.groups)
    console.print(f"{case.workload}: writing {case.rows} rows")
    written = workloads.write(workload)
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-bench-") as temporary:
        shared = Path(temporary) / "config.yaml"
        shared.write_text(yaml.safe_dump(engine_config(config, workload, dummy=case.dummy)))
        runs = _run_all(case, written, shared, Path(temporary), console, scheduler=scale.gpu)
        _keep_logs(runs, Path(temporary))
    summary = summarise(runs)
    asked = {name: value for name, value in asdict(case).items() if name != "results"}  # a path of this machine
    path = _save(case.results, {"case": asked, "workload": asdict(workload), "host": described}, runs, summary)
    hardware = described["hardware"]
    gpus = ", ".join(hardware["gpus"])
    title = f"{case.workload}, {case.rows} rows, {case.model}, {case.repeat} repeats; {hardware['cores']} cores {gpus}"
    show(title, summary, console)
    console.print(str(path))
    return not any(entry["errors"] for entry in summary.values())


def model_folder(model: str, *, dummy: bool) -> str:
    """What `engine.args.model` becomes, a folder if we can make one. Ends the script where vLLM would look online."""
    if dummy and model in SHAPES:
        return shape_folder(model)
    folder = ensure_model(model)
    if Path(folder).is_dir() or isinstance(try_to_load_from_cache(folder, "config.json"), str):
        return folder
    raise SystemExit(
        f"{model} is not on this machine. --dummy needs no file of {', '.join(SHAPES)}. For another model, let the "
        "config's engine.args.model name a folder with config.json, generation_config.json, tokenizer.json, "
        "tokenizer_config.json, the chat template and, for vision, preprocessor_config.json, and give --dummy too"
    )


def engine_config(config: Config, workload: Workload, *, dummy: bool) -> dict[str, Any]:
    """The config that every contender gets: models of our own as folders, T2's small cache, weights or none."""
    assert isinstance(config.engine, VllmEngine)
    data = config.model_dump(mode="json")
    arguments = data["engine"]["args"]
    folder = model_folder(arguments["model"], dummy=dummy)
    if dummy:
        arguments["load_format"] = "dummy"
    if folder != arguments["model"] and dummy:
        data["engine"]["reasoning_parser"] = None  # it wants tokens that a vocabulary of 1,024 does not have
    arguments["model"] = folder
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


def _save(results: str, about: dict[str, Any], runs: Runs, summary: dict[str, Any]) -> Path:
    Path(results).mkdir(exist_ok=True)
    case = about["case"]
    model = Path(case["model"]).stem
    stamp = time.strftime("%Y%m%d-%H%M%S", time.gmtime())
    path = Path(results) / f"peers-{case['workload']}-{model}-{case['rows']}-{stamp}.json"
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
        arguments.results,
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", choices=workloads.NAMES, required=True)
    parser.add_argument("-n", "--rows", type=int, default=1000)
    parser.add_argument("--model", default="tiny", help="tiny, small, or the path of a config")
    parser.add_argument("--against", default=",".join(SCRIPTS), help="contenders, by commas")
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument("--groups", type=int, default=64, help="T2: groups of rows with one system prompt each")
    parser.add_argument("--dummy", action="store_true", help="load_format=dummy: full-size models without weights")
    parser.add_argument("--limit", type=float, default=1200.0, help="seconds for one run")
    parser.add_argument("--results", default=str(RESULTS), help="a folder for the JSON; a trial run belongs elsewhere")
    arguments = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Console(width=None if Console().is_terminal else 200)
    raise SystemExit(0 if run_case(_case(arguments), console) else 1)


if __name__ == "__main__":
    main()
