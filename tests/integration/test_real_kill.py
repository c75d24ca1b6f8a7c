"""The real vLLM, hurt twice in one batch: kill -9 of the driver, and, in the run that goes on from it, an engine that
hangs. One test, because an engine takes half a minute to start here."""

from __future__ import annotations

import json
import os
import random
import re
import signal
import sqlite3
import subprocess
import sys
import tarfile
import time
from contextlib import closing
from pathlib import Path

import psutil
import pytest
import yaml

from lsi_ray.archive.pack import pack_folder
from lsi_ray.config import default_config_path

ROWS = 600  # a quick machine answers 60 a second
HANG_S = 10
TIMEOUT_S = 420
pytestmark = pytest.mark.timeout(2 * TIMEOUT_S)


def test_no_row_is_lost_and_no_process_stays(tmp_path: Path) -> None:
    seed = random.randrange(2**32)
    print(f"seed {seed}")
    command, env = _command(tmp_path)
    driver = subprocess.Popen(command, env=env, stderr=subprocess.DEVNULL, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: _segments(tmp_path), "the first segment")
        time.sleep(random.Random(seed).uniform(0, 1.5))
        assert driver.poll() is None, "it ended before it was killed"
        family = psutil.Process(driver.pid).children(recursive=True)
        os.kill(driver.pid, signal.SIGKILL)
    finally:
        driver.kill()
        driver.wait()
    resumed, at_stake = _resume_and_hang(command, env, tmp_path)  # at once, as people do
    gone, alive = psutil.wait_procs(family, timeout=90)  # Ray's own agents take up to a minute to notice
    assert not alive, f"{len(gone)} processes went, these stayed: {alive}"
    already = re.search(r"going on: (\d+) of", resumed)
    assert already is not None, resumed
    with tarfile.open(tmp_path / "out.tar.gz") as tar:
        file = tar.extractfile("output.jsonl")
        assert file is not None
        found = [json.loads(line)["custom_id"] for line in file]
        manifest = json.loads(tar.extractfile("manifest.json").read())  # type: ignore[union-attr]
    assert found == [f"r{number}" for number in range(ROWS)]
    again = manifest["rows"]["run_again"]
    print(f"{already[1]} of {ROWS} rows were answered before the kill; {again} rows ran twice of {at_stake} in flight")
    assert again <= at_stake


def _resume_and_hang(command: list[str], env: dict[str, str], folder: Path) -> tuple[str, int]:
    """The same command again; its engine is stopped (SIGSTOP) under load, and must be noticed, killed and replaced.
    What it said, and how many rows were in flight when it began, and when its engine was gone."""
    before = _segments(folder)
    said = folder / "resumed.err"
    with said.open("wb") as err:
        driver = subprocess.Popen(command, env=env, stderr=err, stdout=subprocess.DEVNULL)
    try:
        _wait(lambda: "starting Ray" in said.read_text(), "the end of the killed run's ledger")
        at_stake = _in_flight(folder)
        _wait(lambda: _segments(folder) - before, "a segment of the resumed run")
        (engine,) = _engines(driver)
        engine.suspend()
        stopped = time.monotonic()
        _wait(lambda: not engine.is_running(), "the end of the hung engine")
        at_stake += _in_flight(folder)
        print(f"the hung engine was killed after {time.monotonic() - stopped:.1f} s; the timeout is {HANG_S} s")
        family = psutil.Process(driver.pid).children(recursive=True)
        assert driver.wait(TIMEOUT_S) == 0, said.read_text()[-4000:]
    finally:
        driver.kill()
        driver.wait()
    _, alive = psutil.wait_procs(family, timeout=30)
    assert not alive
    return said.read_text(), at_stake


def _in_flight(folder: Path) -> int:
    """Rows that have begun and are not answered."""
    ledger = folder / "work" / "ledger.sqlite"
    with closing(sqlite3.connect(f"file:{ledger}?mode=ro", uri=True)) as db:
        return int(db.execute("SELECT coalesce(sum(todo), 0) FROM shards WHERE begun > 0").fetchone()[0])


def _segments(folder: Path) -> set[Path]:
    return set(folder.glob("work/batches/*/segments/*.seg"))


def _engines(driver: subprocess.Popen[bytes]) -> list[psutil.Process]:
    family = psutil.Process(driver.pid).children(recursive=True)
    return [process for process in family if "EngineCore" in process.name()]


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
    config = yaml.safe_load(default_config_path().read_text())
    config["engine"]["hang_timeout_s"] = HANG_S
    (folder / "tiny.yaml").write_text(yaml.safe_dump(config))
    words = ["run", folder / "in.tar.gz", "-o", folder / "out.tar.gz", "--work-dir", folder / "work"]
    words += ["-c", folder / "tiny.yaml"]
    return [sys.executable, "-m", "lsi_ray", *map(str, words)], {**os.environ, "LSI_CACHE": str(folder / "cache")}


def _wait(condition: object, what: str) -> None:
    assert callable(condition)
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)
