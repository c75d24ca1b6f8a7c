"""The API under load: many batches queued on the simulated engine, clients that poll them, and what that costs.

    python benchmarks/api_load.py                                  200 batches, 20 clients, 60 s, a service of its own
    python benchmarks/api_load.py --batches 20 --clients 4 --seconds 10
    python benchmarks/api_load.py --flood 10000                    the limits on, and so many POSTs of another caller

Asks: how long a GET takes while the service works (p50, p99, the worst), whether memory stays flat (the largest of the
first and of the last third), and how much of a CPU the actor takes. Each client polls one batch after another, ten
times a second at most, and lists every tenth time. With --flood another caller sends submissions, spread over the
seconds, of which the limits take one a second: are the reads of the others as fast, and does memory stay as it was?
Results go to benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import httpx
import psutil
import yaml
from measure import host
from measure.result import Line

from lsi_ray.client import Client

MODEL = "lsi/simulated"
ROWS = 40
OUTPUT_TOKENS = 64
START_S = 120.0
POLL_S = 0.1
ACTOR, REPLICA, PROXY = "ray::ServiceActor", "ray::ServeReplica", "ray::ProxyActor"
FLOODERS = 16


@dataclass
class Polled:
    seconds: list[float] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)

    def took(self, status: int, seconds: float) -> None:
        self.seconds.append(seconds)
        self.statuses[status] = self.statuses.get(status, 0) + 1


@dataclass(frozen=True, slots=True)
class Sample:
    """Of one group of processes: resident bytes and CPU seconds so far."""

    at: float
    rss: int
    cpu_s: float


def main() -> None:
    options = arguments()
    before = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-api-load-") as folder, service(Path(folder), options.flood) as started:
        url, token, process = started
        ids, submitted = submit(url, token, options.batches, Path(folder))
        samples: dict[str, list[Sample]] = {ACTOR: [], REPLICA: [], PROXY: []}
        flood = Flood(url, other_token(Path(folder)), options.flood, options.seconds) if options.flood else None
        polled = load(url, token, ids, options.clients, options.seconds, lambda: sample(process, samples))
        flooded = flood.result() if flood is not None else None
        with Client(url, token) as client:
            done = sum(client.get(batch_id).done for batch_id in ids)
    result = {
        "benchmark": "api_load_flood" if options.flood else "api_load",
        "host": before,
        "lines": [asdict(line) for line in lines(options, polled, flooded)],
        "options": vars(options),
        "submit": submitted,
        "get": latencies(polled),
        "flood": flooded,
        "processes": {name: usage(found) for name, found in samples.items() if found},
        "batches_done": done,
    }
    print(json.dumps({key: value for key, value in result.items() if key not in ("host", "lines")}, indent=2))
    target = Path(__file__).parent / "results" / f"api_load-{time.strftime('%Y%m%d-%H%M%S')}.json"
    target.parent.mkdir(exist_ok=True)
    target.write_text(json.dumps(result, indent=2) + "\n")


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--batches", type=int, default=200)
    parser.add_argument("--clients", type=int, default=20)
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--flood", type=int, default=0, metavar="POSTS", help="of another caller, within the seconds")
    return parser.parse_args()


@contextmanager
def service(folder: Path, flood: int) -> Iterator[tuple[str, str, psutil.Process]]:
    """`lsi serve` with limits out of the way, but for a flood's; its URL, its first token and its process."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [
        "serve",
        "--config",
        deploy(folder, limited=flood > 0),
        "--port",
        str(port),
        "--work-dir",
        str(folder / "work"),
    ]
    with open(folder / "serve.log", "wb") as log:
        process = subprocess.Popen(
            [Path(sys.executable).with_name("lsi"), *command], stdout=subprocess.PIPE, stderr=log, text=True
        )
    assert process.stdout is not None
    try:
        token = process.stdout.readline().strip()
        if not token:
            raise SystemExit(f"the service did not start:\n{(folder / 'serve.log').read_text()[-2000:]}")
        url = f"http://127.0.0.1:{port}"
        with Client(url, attempts=1) as client:
            wait_until_up(client)
        yield url, token, psutil.Process(process.pid)
    finally:
        process.terminate()
        process.wait(60)


def wait_until_up(client: Client) -> None:
    until = time.monotonic() + START_S
    while True:
        try:
            client.health()
            return
        except OSError:
            if time.monotonic() > until:
                raise
            time.sleep(0.5)


def deploy(folder: Path, *, limited: bool) -> str:
    """`limited`: LSI's submissions as by default. The batches of the readers come over OpenAI's surface."""
    engine = {"type": "simulated", "max_num_seqs": 16, "tokens_per_second": 50}
    (folder / "model.yaml").write_text(yaml.safe_dump({"model": MODEL, "engine": engine}))
    rate = {"per_second": 10_000, "burst": 10_000}
    kinds = ("openai_writes", "reads") if limited else ("lsi_writes", "openai_writes", "reads")
    settings = {
        "models": [{"config": "model.yaml"}],
        "api": {"rates": dict.fromkeys(kinds, rate)},
        "admission": {"refuse": False},
    }
    (folder / "deploy.yaml").write_text(yaml.safe_dump(settings))
    return str(folder / "deploy.yaml")


def submit(url: str, token: str, batches: int, folder: Path) -> tuple[list[str], dict[str, float]]:
    """One uploaded file, `batches` batches of it, as fast as one client can."""
    rows = [
        {
            "custom_id": f"r{i}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": MODEL,
                "max_tokens": OUTPUT_TOKENS,
                "messages": [{"role": "user", "content": f"Row {i}"}],
            },
        }
        for i in range(ROWS)
    ]
    (folder / "rows.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    with Client(url, token) as client:
        file = client.upload(folder / "rows.jsonl")
        begun = time.monotonic()
        ids = [client.submit(input=file.id, model=MODEL, window="24h").id for _ in range(batches)]
        took = time.monotonic() - begun
    return ids, {"batches": batches, "seconds": round(took, 3), "per_second": round(batches / took, 1)}


def other_token(folder: Path) -> str:
    lsi = str(Path(sys.executable).with_name("lsi"))
    command = [lsi, "token", "create", "--caller", "flood", "--work-dir", str(folder / "work")]
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout.strip()


class Flood:
    """POSTs of one caller from a process of its own, so that what it costs is not counted as the service's time; status
    0 is a connection that broke."""

    def __init__(self, url: str, token: str, posts: int, seconds: float) -> None:
        command = [sys.executable, __file__, "--flood-child", url, str(posts), str(seconds)]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        assert self._process.stdin is not None
        self._process.stdin.write(token)
        self._process.stdin.close()

    def result(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        found: dict[str, Any] = json.loads(self._process.stdout.read())
        self._process.wait()
        return found


def flood_child(url: str, posts: int, seconds: float) -> None:
    token, begun = sys.stdin.read(), time.monotonic()
    polled = [Polled() for _ in range(FLOODERS)]

    def send(number: int) -> None:
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=60, trust_env=False
        ) as http:
            for i in range(number, posts, FLOODERS):
                time.sleep(max(0.0, begun + i * seconds / posts - time.monotonic()))
                body = {
                    "input_file_uri": f"https://storage.example.com/{i}.tar",
                    "output_file_uri": f"https://storage.example.com/{i}.out",
                    "endpoint": "/v1/chat/completions",
                    "model_id": MODEL,
                    "completion_window": "24h",
                    "store": "s3",
                }
                at = time.monotonic()
                try:
                    status = http.post("/v1/inference/batches", json=body).status_code
                except httpx.TransportError:
                    status = 0
                polled[number].took(status, time.monotonic() - at)

    threads = [threading.Thread(target=send, args=(number,)) for number in range(FLOODERS)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    print(json.dumps({"seconds": round(time.monotonic() - begun, 1), **latencies(polled)}))


def load(url: str, token: str, ids: list[str], clients: int, seconds: float, look: Any) -> list[Polled]:
    until = time.monotonic() + seconds
    polled = [Polled() for _ in range(clients)]
    threads = [
        threading.Thread(target=poll, args=(url, token, ids[i::clients] or ids, until, polled[i]), daemon=True)
        for i in range(clients)
    ]
    for thread in threads:
        thread.start()
    while time.monotonic() < until:
        look()
        time.sleep(1.0)
    for thread in threads:
        thread.join()
    return polled


def poll(url: str, token: str, ids: list[str], until: float, polled: Polled) -> None:
    """Plain httpx: what a repetition hides must be seen here."""
    with httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30, trust_env=False) as http:
        turn = 0
        while (begun := time.monotonic()) < until:
            path = "?limit=20" if turn % 10 == 9 else f"/{ids[turn % len(ids)]}"
            status = http.get(f"/v1/inference/batches{path}").status_code
            polled.took(status, time.monotonic() - begun)
            turn += 1
            time.sleep(max(0.0, begun + POLL_S - time.monotonic()))


def sample(process: psutil.Process, samples: dict[str, list[Sample]]) -> None:
    found: dict[str, list[tuple[int, float]]] = {name: [] for name in samples}
    for child in process.children(recursive=True):
        try:
            title = " ".join(child.cmdline()[:1])
            for name in found:
                if title.startswith(name):
                    cpu = child.cpu_times()
                    found[name].append((child.memory_info().rss, cpu.user + cpu.system))
        except psutil.NoSuchProcess:
            continue
    for name, processes in found.items():
        if processes:
            rss, cpu_s = (sum(column) for column in zip(*processes, strict=True))
            samples[name].append(Sample(time.monotonic(), int(rss), cpu_s))


def latencies(polled: list[Polled]) -> dict[str, Any]:
    seconds = sorted(value for one in polled for value in one.seconds)
    statuses: dict[int, int] = {}
    for one in polled:
        for status, count in one.statuses.items():
            statuses[status] = statuses.get(status, 0) + count
    at = {f"p{q}_ms": round(1000 * seconds[min(len(seconds) - 1, len(seconds) * q // 100)], 1) for q in (50, 90, 99)}
    return {"requests": len(seconds), "statuses": statuses, **at, "worst_ms": round(1000 * seconds[-1], 1)}


def lines(options: argparse.Namespace, polled: list[Polled], flooded: dict[str, Any] | None) -> list[Line]:
    took = latencies(polled)
    told = f"p50 {took['p50_ms']} ms, p99 {took['p99_ms']} ms, worst {took['worst_ms']} ms of {took['requests']:,}"
    beside = f", beside {options.flood:,} POSTs of another caller" if flooded else ""
    return [
        Line(f"a GET of the service with {options.batches} batches queued and {options.clients} clients{beside}", told)
    ]


def usage(samples: list[Sample]) -> dict[str, Any]:
    first, last = samples[0], samples[-1]
    third = max(1, len(samples) // 3)
    mib = [round(max(s.rss for s in part) / 2**20, 1) for part in (samples[:third], samples[-third:])]
    cpu = (last.cpu_s - first.cpu_s) / max(last.at - first.at, 1e-9)
    return {"rss_mib_first_third": mib[0], "rss_mib_last_third": mib[1], "cpu": round(cpu, 3)}


if __name__ == "__main__":
    os.environ.setdefault("RAY_worker_niceness", "0")
    if sys.argv[1:2] == ["--flood-child"]:
        flood_child(sys.argv[2], int(sys.argv[3]), float(sys.argv[4]))
    else:
        main()
