"""A large archive streams in bounded memory: benchmarks/memory.py on 400 MB (the bar and its figures are for 2 GB)."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.timeout(400)
SCRIPT = Path(__file__).parents[2] / "benchmarks" / "memory.py"


@pytest.mark.parametrize("compressed", [False, True], ids=["tar", "tar.gz"])
def test_driver_and_workers_grow_by_less_than_300_mb(tmp_path: Path, compressed: bool) -> None:
    words = ["--gb", "0.4", "--results", str(tmp_path / "results"), *(["--gz"] if compressed else [])]
    done = subprocess.run(
        [sys.executable, str(SCRIPT), *words],
        env={**os.environ, "LSI_CACHE": str(tmp_path / "cache")},
        capture_output=True,
        text=True,
        timeout=380,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    print(done.stdout)
    (result,) = (tmp_path / "results").glob("*.json")
    measured = json.loads(result.read_text())["mb"]
    assert {"driver", "ray::MapWorker(MapBatches(Render))"} <= measured.keys()
    assert {name: mb["growth_mb"] for name, mb in measured.items() if mb["growth_mb"] >= 300} == {}
