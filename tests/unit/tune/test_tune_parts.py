"""The window of a rate, the draw of a sample, the edit of a config, the cause in a log, and the real child process."""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import yaml
from typer.testing import CliRunner

from lsi_ray.cli.main import app
from lsi_ray.config import load_config, parse_config
from lsi_ray.tune.candidate import BOUNDS, SEATS, Candidate
from lsi_ray.tune.edit import edited
from lsi_ray.tune.measurement import steady
from lsi_ray.tune.runner import root_cause
from lsi_ray.tune.sample import draw

ROOT = Path(__file__).parents[3]


def test_the_window_is_whole_waves_after_the_first():
    ends = [10.0 + wave for wave in range(4) for _ in range(8)] + [14.0] * 3
    assert steady(ends, begin=0.0, wave=8) == (8, 32, 3.0, False)


def test_too_few_rows_are_counted_from_the_beginning_and_said_to_be_few():
    assert steady([5.0, 6.0], begin=1.0, wave=8) == (0, 2, 5.0, True)
    assert steady([], begin=1.0, wave=8).seconds == 0


@pytest.mark.parametrize(("plan_rows", "rows"), [(10_000, 512), (10_000, 100), (300, 512), (7, 3), (1, 1), (1000, 999)])
def test_a_sample_is_spread_and_has_no_row_twice(plan_rows, rows):
    seed = random.randrange(2**32)
    print("seed", seed)
    drawn = draw(plan_rows, rows, seed)
    assert len(set(drawn)) == len(drawn) == min(rows, plan_rows)
    assert draw(plan_rows, rows, seed) == drawn
    assert all(0 <= position < plan_rows for position in drawn)
    quarters = {4 * position // plan_rows for position in drawn}
    assert len(quarters) == 4 or rows < 16


def test_a_sample_holds_neighbours_so_that_shared_prefixes_stay_shared():
    drawn = set(draw(100_000, 512, 1))
    assert sum(position + 1 in drawn for position in drawn) > 400


def config_files() -> list[Path]:
    return [path for path in sorted((ROOT / "configs").glob("*.yaml")) if "engine" in yaml.safe_load(path.read_text())]


@pytest.mark.parametrize("path", config_files(), ids=lambda path: path.stem)
def test_an_edited_config_changes_these_arguments_and_keeps_its_comments(path):
    text, config = path.read_text(), load_config(path)
    changes = {"max_num_seqs": 77} if config.engine.type == "simulated" else {"max_num_seqs": 77, "zeta": 0.85}
    new, kept = edited(text, config, changes)
    assert kept
    changed = parse_config(yaml.safe_load(new), source="new")
    assert changed == Candidate(tuple(changes.items())).applied(config)
    assert [line.partition("#")[2] for line in new.splitlines() if "#" in line] == [
        line.partition("#")[2] for line in text.splitlines() if "#" in line
    ]


def test_a_config_in_flow_style_is_edited_in_place():
    text = "model: m  # mine\nengine: {type: vllm, args: {model: m, max_num_seqs: 8}, device: cpu}\n"
    config = parse_config(yaml.safe_load(text), source="text")
    new, kept = edited(text, config, {"max_num_seqs": 16, "max_num_batched_tokens": 512})
    assert kept
    assert "{max_num_batched_tokens: 512, model: m, max_num_seqs: 16}" in new


def test_behind_an_anchor_the_config_is_written_anew():
    text = "model: m  # mine\nreplicas: {min: &n 2, max: 8}\nengine: {type: vllm, args: {model: m, max_num_seqs: *n}}\n"
    config = parse_config(yaml.safe_load(text), source="text")
    new, kept = edited(text, config, {"max_num_seqs": 16})
    assert yaml.safe_load(new)["engine"]["args"]["max_num_seqs"] == 16
    assert yaml.safe_load(new)["replicas"]["min"] == 2
    assert not kept


def test_the_cause_in_a_log_is_not_its_consequence(tmp_path):
    log = tmp_path / "log"
    log.write_text(
        "(EngineCore pid=7) torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB.\n"
        "Traceback (most recent call last):\n"
        "RuntimeError: Engine core initialization failed. See root cause above.\n"
    )
    assert root_cause(log) == "OutOfMemoryError: CUDA out of memory. Tried to allocate 2 GiB."
    log.write_text("all is well\n")
    assert root_cause(log) is None


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    rows = [
        {
            "custom_id": f"r{number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {"model": "m", "max_tokens": 8, "messages": [{"role": "user", "content": f"q{number}"}]},
        }
        for number in range(40)
    ]
    (tmp_path / "batch").mkdir()
    (tmp_path / "batch" / "jobs.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    engine = "  type: simulated\n  max_num_seqs: 2  # few\n  tokens_per_second: 400\n"
    (tmp_path / "config.yaml").write_text(f"model: m\nengine:\n{engine}")
    return tmp_path


def test_the_command_writes_a_better_config(folder, monkeypatch):
    monkeypatch.setattr("lsi_ray.cli.tune._MOST_S", 0.3)
    monkeypatch.setitem(BOUNDS, SEATS, (2, 4))
    out = folder / "tuned.yaml"
    words = ["tune", folder / "config.yaml", "--sample", folder / "batch", "-o", out, "--minutes", "2", "--json"]
    done = CliRunner().invoke(app, [str(word) for word in words])
    assert done.exit_code == 0, done.output
    told = json.loads(done.stdout)
    assert told["gain"] > 0.3
    assert load_config(out).engine.max_num_seqs == told["best"]["max_num_seqs"] == 4
    assert "# few" in out.read_text()
    assert told["sample"] == {"rows": 40, "of": 40, "seed": 0}


def test_the_command_refuses_to_write_over_the_config(folder):
    path = str(folder / "config.yaml")
    done = CliRunner().invoke(app, ["tune", path, "--sample", str(folder / "batch"), "-o", path])
    assert done.exit_code == 2
    assert "another name" in done.output


def test_ctrl_c_keeps_the_best_so_far_and_leaves_no_process(folder):
    command = [
        sys.executable,
        "-m",
        "lsi_ray",
        "tune",
        "config.yaml",
        "--sample",
        "batch",
        "--minutes",
        "0.5",
        "--json",
    ]
    tuning = subprocess.Popen(command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    assert tuning.stderr is not None
    said = ""
    deadline = time.monotonic() + 60
    while "max_num_seqs 4:" not in said and time.monotonic() < deadline:
        said += tuning.stderr.readline()
    os.kill(tuning.pid, signal.SIGINT)
    out, _ = tuning.communicate(timeout=30)
    assert tuning.returncode == 0, said
    told = json.loads(out)
    assert told["ended"] == "stopped by you"
    assert told["best"] == {}
    assert not list(Path(folder).glob("tuned.yaml"))
