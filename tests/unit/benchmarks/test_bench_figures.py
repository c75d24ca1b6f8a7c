"""What the benchmark says of its runs: ratios by repeat, starvation, the newest of each case, what fits the time."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

import results
from all import Step, fitting
from measure.figures import starved
from measure.probe import RECORD
from measure.report import ratio, summarise


def test_a_ratio_is_taken_within_a_repeat_and_leaves_out_failed_runs() -> None:
    runs: dict[str, list[dict[str, Any]]] = {
        "raw": [{"rows_per_s": 100.0}, {"rows_per_s": 50.0}, {"rows_per_s": 10.0}],
        "lsi": [{"rows_per_s": 90.0}, {"rows_per_s": 50.0}, {"error": "it fell over"}],
    }
    assert ratio(runs, "lsi", "raw") == {"low": 0.9, "median": pytest.approx(0.95), "high": 1.0}


def test_a_contender_that_always_failed_has_errors_and_no_figures() -> None:
    summary = summarise({"raw": [{"error": "exit code 1"}]})
    assert summary == {"raw": {"runs": 0, "errors": ["exit code 1"]}}


def test_an_engine_with_fewer_rows_than_it_can_run_starves_but_for_the_tail() -> None:
    calls = np.zeros(3, RECORD)
    calls["begin"], calls["end"] = [0.0, 0.0, 10.0], [4.0, 6.0, 12.0]
    assert starved(calls, max_num_seqs=2) == 0.0  # the last row to enter is the tail, and 95 % had entered at 0
    many = np.zeros(100, RECORD)
    many["begin"] = np.arange(100)
    many["end"] = many["begin"] + 0.25
    assert starved(many, max_num_seqs=1) == pytest.approx(0.75 * 94)


def test_repeats_are_added_by_urgency_while_they_fit() -> None:
    script = Step("script", ("script.py",), 2.0)
    urgent, other = Step("urgent", ("a",), 3.0, (1, 3)), Step("other", ("b",), 3.0, (2, 4))
    assert fitting([script, urgent, other], 8.0) == [(script, 1), (urgent, 1), (other, 1)]
    assert fitting([script, urgent, other], 11.0) == [(script, 1), (urgent, 2), (other, 1)]
    assert fitting([script, urgent, other], 1.0) == []


def test_the_table_holds_the_newest_of_each_case_and_marks_a_loud_machine(tmp_path: Path) -> None:
    _peers(tmp_path / "a.json", "2026-11-22T10:00:00Z", rate=10.0, loud=0.0)
    _peers(tmp_path / "b.json", "2026-11-23T10:00:00Z", rate=20.0, loud=0.5)
    (tmp_path / "other.json").write_text('{"rows": [["a form of its own", "1"]]}')
    line = {"what": "replica idle", "measured": "0.2 s", "bar": "under 1 s", "met": True}
    host = {"date": "2026-11-23T11:00:00Z", "commit": "c" * 40, "hardware": {"cores": 2, "gpus": []}}
    (tmp_path / "c.json").write_text(json.dumps({"benchmark": "two_batches", "host": host, "lines": [line]}))
    text = results.write(tmp_path).read_text()
    assert "~20.0" in text
    assert "10.0 |" not in text.replace("~20.0", "")
    assert "| replica idle | 0.2 s | under 1 s | met | 2 cores | 2026-11-23, ccccccc |" in text


def test_the_readme_quotes_what_was_measured_between_two_marks(tmp_path: Path) -> None:
    _peers(tmp_path / "a.json", "2026-11-22T10:00:00Z", rate=10.0, loud=0.0)
    readme = tmp_path / "README.md"
    mark, end = "<!-- measured: made by benchmarks/results.py -->\n", "<!-- /measured -->\n"
    readme.write_text(f"# Title\n{mark}old\n{end}## Next\n")
    results.write_readme(results.load(tmp_path), readme)
    text = readme.read_text()
    assert text.startswith(f"# Title\n{mark}")
    assert text.endswith(f"{end}## Next\n")
    assert "| T1 tiny | 10.0 | 1.00 (1.00-1.00) |" in text
    assert "2 cores, 2026-11-22, ccccccc:" in text
    assert "old" not in text
    assert mark in (Path(__file__).parents[3] / "README.md").read_text()


def test_pictures_are_drawn_of_what_is_there(tmp_path: Path) -> None:
    import plots

    _peers(tmp_path / "a.json", "2026-11-22T10:00:00Z", rate=10.0, loud=0.0)
    plots.main(tmp_path)
    assert sorted(path.name for path in tmp_path.glob("*.png")) == ["2-cores-cpu.png", "2-cores-ratios.png"]
    assert "![2-cores-ratios.png](2-cores-ratios.png)" in results.write(tmp_path).read_text()


def _peers(path: Path, date: str, *, rate: float, loud: float) -> None:
    run = {
        "rows_per_s": rate,
        "prompt_tokens_per_s": 1.0,
        "output_tokens_per_s": 1.0,
        "hit_rate": 0.5,
        "engine_start_s": 1.0,
        "start_s": 2.0,
        "first_row_s": 0.1,
        "tail_s": 0.1,
        "tail_share": 0.05,
        "starved_share": 0.0,
        "cpu_s_per_1000": {"engine core": 10.0, "driver": 1.0},
        "cpu_s_per_1000_all": 11.0,
        "others_cpu_share": loud,
        "peak_bytes": 1e9,
        "gpu": None,
        "scheduler": None,
    }
    case = {"workload": "T1", "rows": 100, "model": "tiny", "repeat": 1, "groups": 64, "dummy": False}
    host = {"date": date, "commit": "c" * 40, "hardware": {"cores": 2, "gpus": []}}
    summary = summarise({"raw": [run], "lsi": [run]})
    path.write_text(json.dumps({"case": case, "host": host, "summary": summary}))
