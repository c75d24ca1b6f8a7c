"""Every hostile archive is refused with its own code, under 2 s of CPU and 64 MiB. Nothing is written but its tar."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import hostile_tars
import pytest
from tar_blocks import archive, zipped


@pytest.fixture(scope="module")
def verdicts(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[str, str, float]]:
    """name -> (code wanted, code given, seconds), all judged in one child process with little memory."""
    folder = tmp_path_factory.mktemp("hostile")
    wanted = {}
    for name, code, data in hostile_tars.corpus():
        assert name not in wanted, name
        wanted[name] = code
        (folder / name).write_bytes(data)
    command = [sys.executable, hostile_tars.__file__, str(folder), str(64 << 20)]
    path = os.pathsep.join(entry for entry in sys.path if entry)
    run = subprocess.run(command, capture_output=True, check=False, env={**os.environ, "PYTHONPATH": path}, timeout=60)
    assert run.returncode == 0, run.stderr.decode()
    given = json.loads(run.stdout)
    assert {entry.name for entry in folder.iterdir() if entry.suffix != ".plain"} == set(wanted)
    return {name: (code, *given[name]) for name, code in wanted.items()}


def test_every_hostile_archive_is_refused_for_its_own_reason(verdicts: dict[str, tuple[str, str, float]]) -> None:
    assert len(verdicts) >= 120
    assert {name: verdict for name, verdict in verdicts.items() if verdict[0] != verdict[1]} == {}


def test_every_refusal_takes_less_than_two_seconds(verdicts: dict[str, tuple[str, str, float]]) -> None:
    assert {name: verdict for name, verdict in verdicts.items() if verdict[2] >= 2} == {}


def test_the_same_reader_accepts_a_good_archive(tmp_path: Path) -> None:
    """Else the verdicts above would say little."""
    good = tmp_path / "good.tar.gz"
    good.write_bytes(zipped(archive()))
    assert hostile_tars.judge(good)[0] == "accepted"
