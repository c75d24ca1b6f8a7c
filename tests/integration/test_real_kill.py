"""kill -9 of the driver in the middle of a run on the real vLLM, and the same command again."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import subprocess
import sys
import tarfile
import time
from pathlib import Path

import psutil
import pytest

from lsi_ray.archive.pack import pack_folder

ROWS = 400
TIMEOUT_S = 420
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


def test_no_row_is_lost_and_no_process_stays(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    command, env = _command(tmp_path)
    driver = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: list(tmp_path.glob("work/batches/*/segments/*.seg")), "the first segment")
        time.sleep(random.Random(seed).uniform(0, 3))
        family = psutil.Process(driver.pid).children(recursive=True)
        os.kill(driver.pid, signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    gone, alive = psutil.wait_procs(family, timeout=90)  # Ray's own agents take up to a minute to notice
    assert not alive, f"{len(gone)} processes went, these stayed: {alive}"

    resumed = subprocess.run(command, env=env, capture_output=True, text=True, timeout=TIMEOUT_S, check=False)
    assert resumed.returncode == 0, resumed.stderr[-4000:]
    already = re.search(r"going on: (\d+) of", resumed.stderr)
    assert already is not None, resumed.stderr
    with tarfile.open(tmp_path / "out.tar.gz") as tar:
        file = tar.extractfile("output.jsonl")
        assert file is not None
        found = [json.loads(line)["custom_id"] for line in file]
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert found == [f"r{number}" for number in range(ROWS)]
    again = manifest["rows"]["run_again"]
    print(f"{already[1]} of {ROWS} rows were answered before the kill; {again} rows ran twice")
    # Two shards of 64 run in one engine of 64 sequences, and one more may have begun to be committed.
    assert again <= 3 * 64


def _command(folder: Path) -> tuple[list[str], dict[str, str]]:
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "lsi/tiny-vl",
                "max_tokens": 160,
                "ignore_eos": True,
                "temperature": 0,
                "messages": [{"role": "user", "content": f"Question {number}"}],
            },
        }
        for number in range(ROWS)
    ]
    (folder / "batch").mkdir()
    (folder / "batch" / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pack_folder(folder / "batch", folder / "in.tar.gz")
    words = ["run", folder / "in.tar.gz", "-o", folder / "out.tar.gz", "--work-dir", folder / "work"]
    return [sys.executable, "-m", "lsi_ray", *map(str, words)], {**os.environ, "LSI_CACHE": str(folder / "cache")}


def _wait(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)
