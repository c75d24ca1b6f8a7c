"""How the benchmark's scripts judge what they measured, on records written here."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import archive
import control_plane
import start
import two_batches
from contenders import gate
from measure.probe import FOLDER, RECORD
from measure.result import Line, conclude
from synthetic.shapes import SHAPES, _config
from workloads import Scale, Workload, cache_tokens, plan

HOST = {"date": "2026-11-23T11:00:00Z", "commit": "c" * 40, "hardware": {"cores": 2, "gpus": []}}


@pytest.mark.parametrize(("second_begins", "met"), [(20.5, True), (21.5, False), (19.0, True)])
def test_the_replica_is_idle_between_the_last_row_of_one_batch_and_the_first_of_the_next(
    second_begins: float, met: bool
) -> None:
    calls = np.zeros(6, RECORD)
    calls["output"] = np.repeat(two_batches._OUTPUTS, 2)
    calls["begin"] = [10, 11, second_begins, second_begins + 1, 40.5, 41]
    calls["end"] = calls["begin"] + [10, 9, 3, 3, 3, 3]
    seen = two_batches._seen(calls, [(1.0, 9.0)], [0.5, 0.6, 40.0], answered=44.0)
    assert seen["idle_between_s"] == pytest.approx(second_begins - 20)
    assert (seen["later_start_s"], seen["later_answer_s"], seen["first_start_s"]) == (0.5, 4.0, 9.5)
    idle, later, *_ = two_batches.judge(seen, {"run-batch": 30.0})
    assert (idle.met, later.met) == (met, True)


def test_a_batch_whose_engine_started_anew_paid_a_start() -> None:
    calls = np.zeros(3, RECORD)
    calls["output"], calls["begin"], calls["end"] = two_batches._OUTPUTS, [10, 12, 60], [11, 13, 61]
    seen = two_batches._seen(calls, [(1.0, 9.0), (42.0, 59.0)], [0.5, 0.6, 40.0], answered=62.0)
    assert [line.met for line in two_batches.judge(seen, {})[:2]] == [False, False]


@pytest.mark.parametrize(("first_row", "met"), [(38.0, True), (41.0, False)])
def test_a_start_is_held_against_the_fastest_engine(first_row: float, met: bool) -> None:
    def run(up: float, first: float) -> list[dict[str, Any]]:
        return [{"engine_up_s": up, "start_s": first - 1, "first_row_s": 1.0}]

    runs = {"raw": run(30.0, 31.0), "run-batch": run(33.0, 35.0), "lsi": run(29.0, first_row)}
    assert start.judge(runs, "tiny")[0].met is met


def test_the_control_planes_rate_is_of_the_steady_part_and_is_a_plain_number() -> None:
    class Tree:
        def cpu(self, begin: float, end: float) -> dict[str, float]:
            return {"driver": (end - begin) / 2}

        def others(self, begin: float, end: float) -> float:
            return 0.0 * (end - begin)

        def peaks(self) -> dict[str, int]:
            return {"driver": 100_000_000, "GatedLedger": 60_000_000}

    answers = [(float(second), 100) for second in range(100)]
    found = control_plane._figures(answers, Tree(), (0.1, 0.9))  # type: ignore[arg-type]
    assert found["rows_per_s"] == pytest.approx(100)
    assert found["cpu_s_per_1000"] == {"driver": pytest.approx(5.0)}
    json.dumps(found)
    more = found | {"rows": 20 * found["rows"], "peaks": {"driver": 210_000_000, "GatedLedger": 61_000_000}}
    assert [line.met for line in control_plane.judge_memory(found, more)] == [False, True]
    scaled = [found | {"replicas": 1}, found | {"replicas": 8, "rows_per_s": 790.0}]
    assert [line.met for line in control_plane.judge_linear(scaled)] == [None, True]
    slow = [found | {"replicas": 1}, found | {"replicas": 8, "rows_per_s": 750.0}]
    assert [line.met for line in control_plane.judge_linear(slow)] == [None, False]


def test_staging_is_held_against_the_fastest_library_on_one_core() -> None:
    def runs(seconds: float) -> list[dict[str, float]]:
        return [{"bytes": 1e9, "seconds": seconds, "cpu_s": seconds}]

    found = {"lsi": runs(1.0), "isal": runs(0.95), "zlib": runs(2.0), "rapidgzip": runs(0.1)}
    assert archive.judge(found, "in.tar.gz", 1.0)[0].met is True
    found["isal"] = runs(0.5)
    assert archive.judge(found, "in.tar.gz", 1.0)[0].met is False


def test_a_conclusion_is_written_and_says_whether_a_bar_was_missed(tmp_path: Path) -> None:
    lines = [Line("one", "1", "2", True), Line("two", "no bar")]
    assert conclude("some", lines, {"more": [1]}, HOST, tmp_path)
    assert not conclude("other", [*lines, Line("three", "1", "2", False)], {}, HOST, tmp_path)
    (path,) = tmp_path.glob("some-*.json")
    assert json.loads(path.read_text())["lines"][0]["met"] is True


def test_rows_wait_for_the_engine_only_where_they_are_held(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(FOLDER, str(tmp_path))
    monkeypatch.setenv(gate.HELD, "0")
    assert gate.engine_is_up()
    monkeypatch.setenv(gate.HELD, "1")
    assert not gate.engine_is_up()
    (tmp_path / "started-1.txt").write_text(f"{time.time()} {time.time()}")
    assert gate.engine_is_up()


@pytest.mark.parametrize("model", SHAPES)
def test_a_shape_is_a_whole_config_of_its_own_kind(model: str, tmp_path: Path) -> None:
    small = {"model_type": "qwen2_5_vl", "eos_token_id": 2, "image_token_id": 3, "rms_norm_eps": 1e-6}
    (tmp_path / "config.json").write_text(json.dumps(small | {"vision_config": {"patch_size": 14}}))
    config = _config(tmp_path, model)
    assert config["hidden_size"] == SHAPES[model]["hidden_size"]
    assert ("vision_config" in config) == ("VL" in model) == ("image_token_id" in config)
    if "VL" in model:
        assert config["vision_config"]["patch_size"] == 14
        assert config["vision_config"]["out_hidden_size"] == config["hidden_size"]


def test_more_groups_never_fit_the_cache_of_t2() -> None:
    workload = Workload("T2", 800, Scale("cpu", 4096), "m", 0.75, groups=512)
    shared = {row.group: row.shared for row in plan(workload)}
    assert sum(shared.values()) > 2 * (cache_tokens(workload, 64) or 0)
