"""Where a row's CPU time goes: by process, and inside each Python process by function. CPU seconds per 1,000 rows.

    python benchmarks/profile_rows.py                                  T1, 1,000 rows, tiny, lsi
    python benchmarks/profile_rows.py --against raw,lsi --save before   to results/profile-before.md

Each contender runs twice: once with nothing but the look at process times from outside (the first table), once with
the sampler of measure/stacks.py in every Python process (the rest). Counted from the first row in the engine to the
last answer, as in peers.py; on a machine that is not quiet, compare CPU seconds and nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import workloads
import yaml
from contenders.task import Task
from measure import host, probe, stacks
from measure.process_tree import label_of
from measure.runner import SCRIPTS, run_once
from peers import CONFIGS, RESULTS, engine_config, model_folder
from synthetic.text import words_per_token
from workloads import Scale, Workload, Written

from lsi_ray.config import VllmEngine, load_config

_LEAST = 0.02  # CPU seconds per 1,000 rows: what is less is not shown

Spent = dict[str, float]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("-w", "--workload", choices=workloads.NAMES, default="T1")
    parser.add_argument("-n", "--rows", type=int, default=1000)
    parser.add_argument("--model", default="tiny")
    parser.add_argument("--against", default="lsi", help=f"of {', '.join(SCRIPTS)}, by commas")
    parser.add_argument("--no-plain", action="store_true", help="only the run with the sampler")
    parser.add_argument("--top", type=int, default=12, help="functions per process and table")
    parser.add_argument("--save", metavar="NAME", help="write results/profile-NAME.md")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="lsi-profile-") as folder:
        written, config = _prepare(arguments, Path(folder))
        parts = [_profile(name, written, config, arguments) for name in arguments.against.split(",")]
    text = "\n".join([_title(arguments), *parts])
    print(text)
    if arguments.save:
        (RESULTS / f"profile-{arguments.save}.md").write_text(text + "\n")


def _prepare(arguments: argparse.Namespace, folder: Path) -> tuple[Written, Path]:
    config = load_config(CONFIGS.get(arguments.model, Path(arguments.model)))
    assert isinstance(config.engine, VllmEngine)
    scale = Scale("cpu" if config.engine.device == "cpu" else "gpu", int(config.engine.args["max_model_len"]))
    model = model_folder(config.engine.args["model"], dummy=False)
    rate = words_per_token(model)
    workload = Workload(arguments.workload, arguments.rows, scale, config.model, round(rate, 3))
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(engine_config(config, workload, dummy=False)))
    return workloads.write(workload), path


def _profile(name: str, written: Written, config: Path, arguments: argparse.Namespace) -> str:
    lines = [f"\n## {name}\n"]
    if not arguments.no_plain:
        plain = _run(name, written, config, config.parent / f"{name}-plain")
        lines += _by_process(plain)
    out = config.parent / f"{name}-stacks"
    stacks.install(out.parent / "sampler")
    _run_sampled(name, written, config, out)
    lines += _by_function(out, written.good, arguments.top)
    return "\n".join(lines)


def _run(name: str, written: Written, config: Path, out: Path) -> dict[str, Any]:
    task = Task(
        archive=str(written.archive),
        lines=str(written.lines),
        media=str(written.folder.resolve()),
        rows=written.good,
        config=str(config),
        out=str(out),
    )
    done = run_once(name, task, scheduler=False, limit_s=1200.0)
    if "error" in done:
        raise SystemExit(f"{name}: {done['error']}")
    return done


def _run_sampled(name: str, written: Written, config: Path, out: Path) -> None:
    folder = out.parent / f"{name}-samples"
    folder.mkdir()
    os.environ["PYTHONPATH"], os.environ[stacks.FOLDER] = str(out.parent / "sampler"), str(folder)
    try:
        _run(name, written, config, out)
    finally:
        del os.environ["PYTHONPATH"], os.environ[stacks.FOLDER]


def _by_process(done: dict[str, Any]) -> list[str]:
    lines = ["| process | CPU s per 1,000 rows |", "|---|---|"]
    lines += [f"| {label} | {spent:.2f} |" for label, spent in done["cpu_s_per_1000"].items() if spent >= _LEAST]
    lines.append(f"| **all** | **{done['cpu_s_per_1000_all']:.2f}** |")
    lines.append("")
    lines.append(
        f"{done['rows_per_s']:.1f} rows/s; command to first row in the engine {done['start_s']:.1f} s, of which the "
        f"engine's construction {done['engine_start_s']:.1f} s; others used {done['others_cpu_share']:.2f} cores."
    )
    return lines


def _by_function(out: Path, rows: int, top: int) -> list[str]:
    calls = probe.read_rows(out)
    answers = [at for at, count in json.loads((out / "answers.json").read_text()) if count]
    samples = out.parent / out.name.replace("-stacks", "-samples")
    found: dict[str, list[tuple[stacks.Stack, float]]] = defaultdict(list)
    for title, stack, spent in stacks.read_stacks(samples, float(calls["begin"][0]), max(answers)):
        found[label_of(title)].append((stack, 1000 * spent / rows))
    lines: list[str] = []
    for label, spent_in in sorted(found.items(), key=lambda one: -_total(one[1])):
        if _total(spent_in) < 5 * _LEAST:
            continue
        lines += [f"\n### {label}: {_total(spent_in):.2f}\n", "| inside | s | itself | s |", "|---|---|---|---|"]
        inclusive, own = _inclusive(spent_in)[:top], _own(spent_in)[:top]
        for number in range(max(len(inclusive), len(own))):
            lines.append(f"| {_cell(inclusive, number)} | {_cell(own, number)} |")
    return lines


def _total(spent: Iterable[tuple[stacks.Stack, float]]) -> float:
    return sum(one for _, one in spent)


def _own(spent: Iterable[tuple[stacks.Stack, float]]) -> list[tuple[str, float]]:
    found: Spent = defaultdict(float)
    for stack, one in spent:
        found[stack[-1]] += one
    return _largest(found)


def _inclusive(spent: list[tuple[stacks.Stack, float]]) -> list[tuple[str, float]]:
    """Functions with what they call; of a chain in which one does nothing but call the next, the innermost."""
    found: Spent = defaultdict(float)
    inner: dict[str, Spent] = defaultdict(lambda: defaultdict(float))
    for stack, one in spent:
        for name in set(stack):
            found[name] += one
        for name, callee in {(stack[at], stack[at + 1]) for at in range(len(stack) - 1)}:
            inner[name][callee] += one
    chains = {name for name, callees in inner.items() if max(callees.values()) > 0.97 * found[name]}
    return _largest({name: one for name, one in found.items() if name not in chains})


def _largest(found: Spent) -> list[tuple[str, float]]:
    return sorted(((name, one) for name, one in found.items() if one >= _LEAST), key=lambda item: -item[1])


def _cell(found: list[tuple[str, float]], number: int) -> str:
    if number >= len(found):
        return " | "
    name, spent = found[number]
    return f"`{name}` | {spent:.2f}"


def _title(arguments: argparse.Namespace) -> str:
    described = host.describe()
    hardware = described["hardware"]
    return (
        f"# CPU of a row: {arguments.workload}, {arguments.rows} rows, {arguments.model}\n\n"
        f"`benchmarks/profile_rows.py`, {described['date']}, commit {described['commit'][:12]}, "
        f"{hardware['cores']} cores of {hardware['cpu']}."
    )


if __name__ == "__main__":
    main()
