"""Two batches of one model, one after the other: does the second pay a start, and does the replica wait between them?

    python benchmarks/two_batches.py [--rows 400] [--model tiny|small|CONFIG] [--against run-batch,ray-data-llm]

A service of its own gets a first batch, a second one right behind it, and, when both are done, a third. Seen from the
engine: how long it held no row between the first and the second, and how long after its submission the third had its
first row in the engine, and its first answers durable. Beside it: the start that a peer pays for every batch. The bar:
no start, and the replica idle for less than 1 s. Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import yaml
from contenders.task import Task
from measure import host, probe
from measure.result import RESULTS, Line, conclude
from measure.runner import BENCHMARKS, run_once
from start import prepare

from lsi_ray.client import Client
from lsi_ray.config import load_config

_BAR_S = 1.0
_UP_S, _DONE_S, _POLL_S = 120.0, 900.0, 0.1
_OUTPUTS = (32, 31, 30)
"""Tokens of each answer of the three batches: by them the engine's records tell the batches apart."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rows", type=int, default=400)
    parser.add_argument("--model", default="tiny", help="tiny, small, or the path of a config")
    parser.add_argument("--against", default="run-batch,ray-data-llm", help="peers whose start is shown, by commas")
    parser.add_argument("--dummy", action="store_true", help="load_format=dummy")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-two-") as name:
        folder = Path(name)
        task = prepare(options.model, options.rows, folder, dummy=options.dummy)
        seen = three_batches(task, folder)
        peers = {peer: _peer_start(peer, task, folder) for peer in options.against.split(",") if peer}
    lines = judge(seen, peers)
    raise SystemExit(
        0 if conclude("two_batches", lines, {"seen": seen, "peers": peers}, described, options.results) else 1
    )


def three_batches(task: Task, folder: Path) -> dict[str, Any]:
    with service(task, folder) as (url, token), Client(url, token) as client:
        model = load_config(Path(task.config)).model
        files = [client.upload(_rows(task, output, folder)).id for output in _OUTPUTS]

        def submit(file: str) -> tuple[float, str]:
            return time.time(), client.submit(input=file, model=model, window="24h").id

        first, second = submit(files[0]), submit(files[1])
        _wait(client, first[1])
        _wait(client, second[1])
        third = submit(files[2])
        answered = _first_answer(client, third[1])
        _wait(client, third[1])
    return _seen(probe.read_rows(folder), probe.read_started(folder), [first[0], second[0], third[0]], answered)


@contextmanager
def service(task: Task, folder: Path) -> Iterator[tuple[str, str]]:
    """`lsi serve` with this model, its limits out of the way, and the probe in its engine; its URL and a token."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = taken.getsockname()[1]
    rate = {"per_second": 10_000, "burst": 10_000}
    settings = {
        "models": [{"config": task.config, "idle_timeout_s": 600}],
        "api": {"rates": dict.fromkeys(("lsi_writes", "openai_writes", "reads"), rate)},
        "admission": {"refuse": False},
    }
    (folder / "deploy.yaml").write_text(yaml.safe_dump(settings))
    probe.install(folder / "probe", scheduler=False)
    words = ["serve", "--config", folder / "deploy.yaml", "--port", port, "--work-dir", folder / "work"]
    paths = (folder / "probe", BENCHMARKS, BENCHMARKS.parent)
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths)), probe.FOLDER: str(folder)}
    with (folder / "serve.log").open("wb") as log:
        process = subprocess.Popen(
            [sys.executable, "-m", "lsi_ray", *map(str, words)],
            stdout=subprocess.PIPE,
            stderr=log,
            text=True,
            env=environment | {"RAY_worker_niceness": "0"},
        )
    try:
        assert process.stdout is not None
        token = process.stdout.readline().strip()
        if not token:
            raise SystemExit(f"the service did not start:\n{(folder / 'serve.log').read_text()[-2000:]}")
        url = f"http://127.0.0.1:{port}"
        _wait_until_up(url)
        yield url, token
    finally:
        _end(process)


def _wait_until_up(url: str) -> None:
    until = time.monotonic() + _UP_S
    with Client(url, attempts=1) as client:
        while True:
            try:
                client.health()
                return
            except OSError:
                if time.monotonic() > until:
                    raise
                time.sleep(0.5)


def _end(process: subprocess.Popen[str]) -> None:
    children = psutil.Process(process.pid).children(recursive=True)
    process.terminate()
    try:
        process.wait(60)
    except subprocess.TimeoutExpired:
        process.kill()
    for child in psutil.wait_procs(children, timeout=10)[1]:
        child.kill()


def _rows(task: Task, output: int, folder: Path) -> Path:
    path = folder / f"rows-{output}.jsonl"
    rows = [json.loads(line) for line in Path(task.lines).read_text().splitlines()]
    for row in rows:
        row["body"]["max_tokens"] = output
        row["body"]["messages"][-1]["content"] = f"{output}: {row['body']['messages'][-1]['content']}"
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def _first_answer(client: Client, batch: str) -> float:
    until = time.monotonic() + _DONE_S
    while time.monotonic() < until:
        found = client.get(batch)
        if found.done or found.counts.completed:
            return time.time()
        time.sleep(_POLL_S)
    raise SystemExit(f"{batch}: no answer within {_DONE_S:.0f} s")


def _wait(client: Client, batch: str) -> None:
    until = time.monotonic() + _DONE_S
    while not (found := client.get(batch)).done:
        if time.monotonic() > until:
            raise SystemExit(f"{batch} is {found.status} after {_DONE_S:.0f} s")
        time.sleep(5 * _POLL_S)


def _seen(
    calls: np.ndarray[Any, Any], started: list[tuple[float, float]], submitted: list[float], answered: float
) -> dict[str, Any]:
    one, two, three = (calls[calls["output"] == output] for output in _OUTPUTS)
    if not (len(one) == len(two) == len(three)):
        raise SystemExit(f"the engine saw {len(one)}, {len(two)} and {len(three)} rows")
    return {
        "rows": len(one),
        "first_start_s": float(one["begin"].min()) - submitted[0],
        "engine_start_s": max(done - begun for begun, done in started),
        "idle_between_s": float(two["begin"].min() - one["end"].max()),
        "later_start_s": float(three["begin"].min()) - submitted[2],
        "later_answer_s": answered - submitted[2],
        "starts": len(started),
    }


def _peer_start(peer: str, task: Task, folder: Path) -> float:
    done = run_once(peer, task.into(folder / peer), scheduler=False, limit_s=600)
    if "error" in done:
        raise SystemExit(f"{peer}: {done['error']}")
    return float(done["start_s"])


def judge(seen: dict[str, Any], peers: dict[str, float]) -> list[Line]:
    idle = seen["idle_between_s"]
    told = f"{max(idle, 0):.2f} s" + (" (rows of the second ran beside the last of the first)" if idle < 0 else "")
    starts = ", ".join(f"{peer} {seconds:.1f} s" for peer, seconds in peers.items())
    entered, answered = seen["later_start_s"], seen["later_answer_s"]
    later = f"{entered:.2f} s to its first row in the engine, {answered:.2f} s to a durable answer"
    return [
        Line("replica idle between two batches of a model", told, "under 1 s", idle < _BAR_S and seen["starts"] == 1),
        Line("a batch submitted to an idle replica", later, "no start", seen["later_start_s"] < seen["engine_start_s"]),
        Line("the same for the model's first batch", f"{seen['first_start_s']:.1f} s to its first row in the engine"),
        Line("start that a peer pays for each batch", starts),
    ]


if __name__ == "__main__":
    main()
