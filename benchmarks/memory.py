"""How much memory does a large archive take? A 2 GB archive through `lsi run` on the simulated engine.

    python benchmarks/memory.py [--gb 2] [--gz]

For each process of the run: the private memory (USS) when it had settled, the most it reached, and the growth between.
The bar: driver and workers each grow by less than 300 MB. What rows cost, control_plane.py says. Results go to
benchmarks/results/ as JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path
from typing import Any, BinaryIO

import psutil
from measure import host
from measure.result import RESULTS, Line, conclude

from lsi_ray.archive.tar_writer import TarWriter, open_gzip

FILE_BYTES = 2_000_000
BAR_MB = 300
SETTLED_S = 4.0  # a process imports first; growth counts from then on


def write_archive(path: Path, size: int) -> int:
    """jobs.jsonl and as many incompressible files of 2 MB as `size` holds; the rows, one per file."""
    count = size // FILE_BYTES
    rows = "".join(json.dumps(_row(number)) + "\n" for number in range(count)).encode()
    with path.open("wb") as file:
        if path.suffix == ".gz":
            with open_gzip(file) as plain:  # type: ignore[arg-type]
                _write(plain, rows, count)
        else:
            _write(file, rows, count)
    return count


def _write(file: BinaryIO, rows: bytes, count: int) -> None:
    tar = TarWriter(file)
    tar.add_bytes("jobs.jsonl", rows)
    for number in range(count):
        tar.add_bytes(f"files/{number}.jpg", os.urandom(FILE_BYTES))
    tar.close()


def _row(number: int) -> dict[str, Any]:
    image = {"type": "image_url", "image_url": {"url": f"file:files/{number}.jpg"}}
    body = {"model": "lsi/simulated", "max_tokens": 4, "messages": [{"role": "user", "content": [image]}]}
    return {"custom_id": f"r{number}", "method": "POST", "url": "/v1/chat/completions", "body": body}


def measure(archive: Path, folder: Path) -> dict[str, dict[str, float]]:
    """MB by process name: where it settled, its peak, and the growth of the one that grew most."""
    config = folder / "config.yaml"
    config.write_text('{"model": "lsi/simulated", "engine": {"type": "simulated", "max_num_seqs": 64}}')
    words = ["run", archive, "-o", folder / "out.tar.gz", "-c", config, "--work-dir", folder / "work"]
    driver = subprocess.Popen([sys.executable, "-m", "lsi_ray", *map(str, words)])
    seen: dict[int, dict[str, Any]] = {}
    while driver.poll() is None:
        _sample(psutil.Process(driver.pid), seen)
        time.sleep(0.25)
    assert driver.returncode == 0, f"lsi run ended with {driver.returncode}"
    worst: dict[str, dict[str, float]] = {}
    for one in seen.values():
        growth = round(one["peak"] - one["settled"], 1)
        if one["name"] not in worst or growth > worst[one["name"]]["growth_mb"]:
            worst[one["name"]] = {"settled_mb": one["settled"], "peak_mb": one["peak"], "growth_mb": growth}
    return worst


def _sample(root: psutil.Process, seen: dict[int, dict[str, Any]]) -> None:
    with suppress(psutil.Error):
        for process in [root, *root.children(recursive=True)]:
            with suppress(psutil.Error, OSError):
                uss = round(process.memory_full_info().uss / 1e6, 1)
                name = "driver" if process.pid == root.pid else process.name()
                one = seen.setdefault(
                    process.pid, {"name": name, "since": time.monotonic(), "settled": uss, "peak": uss}
                )
                if name.startswith("ray::"):
                    one["name"] = name
                if time.monotonic() - one["since"] < SETTLED_S:
                    one["settled"] = uss
                one["peak"] = max(one["peak"], uss)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gb", type=float, default=2.0)
    parser.add_argument("--gz", action="store_true", help="a .tar.gz, decompressed on the way in")
    parser.add_argument("--results", type=Path, default=RESULTS)
    options = parser.parse_args()
    described = host.describe()
    with tempfile.TemporaryDirectory(prefix="lsi-memory-") as name:
        folder = Path(name)
        archive = folder / ("in.tar.gz" if options.gz else "in.tar")
        rows = write_archive(archive, int(options.gb * 1e9))
        worst = measure(archive, folder)
    what = f"a {options.gb:g} GB {'.tar.gz' if options.gz else '.tar'} of {rows:,} files, memory of"
    most = max(worst.keys() - {"driver"}, key=lambda process: worst[process]["growth_mb"])
    lines = [
        Line(f"{what} {who}", _told(mb), f"grows under {BAR_MB} MB", mb["growth_mb"] < BAR_MB)
        for who, mb in (("the driver", worst["driver"]), (f"{most}, which grew most beside it", worst[most]))
    ]
    name = "memory-gz" if options.gz else "memory"
    detail = {"gb": options.gb, "rows": rows, "mb": worst}
    raise SystemExit(0 if conclude(name, lines, detail, described, options.results) else 1)


def _told(mb: dict[str, float]) -> str:
    return f"grew {mb['growth_mb']:.0f} MB, from {mb['settled_mb']:.0f} to {mb['peak_mb']:.0f} MB"


if __name__ == "__main__":
    main()
