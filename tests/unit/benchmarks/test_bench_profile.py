"""The profile of a row: samples of CPU by stack, cut to a span of time, summed by function."""

from __future__ import annotations

import json
import sys
import threading
import time
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[3] / "benchmarks"))

from measure.stacks import _Sampler, read_stacks
from profile_rows import _inclusive, _own


def test_a_second_at_the_edge_counts_by_its_share(tmp_path: Path) -> None:
    lines = [
        {"begin": 10.0, "end": 11.0, "title": "python", "stacks": [[["a", "b"], 0.5]]},
        {"begin": 11.0, "end": 12.0, "title": "ray::Render", "stacks": [[["a", "b"], 0.4], [["a", "c"], 0.2]]},
        {"begin": 12.0, "end": 13.0, "title": "ray::Render", "stacks": [[["a"], 9.0]]},
    ]
    text = "".join(json.dumps(line) + "\n" for line in lines)
    (tmp_path / "stacks-1.jsonl").write_text(text + '{"begin": 13.0, "en')  # killed while it wrote
    found = list(read_stacks(tmp_path, 10.5, 12.0))
    assert found == [
        ("ray::Render", ("a", "b"), pytest.approx(0.25)),  # the last title: a worker's changes with what it runs
        ("ray::Render", ("a", "b"), pytest.approx(0.4)),
        ("ray::Render", ("a", "c"), pytest.approx(0.2)),
    ]


def test_only_the_thread_that_works_is_charged(tmp_path: Path) -> None:
    end = threading.Event()

    def work() -> None:
        while not end.is_set():
            pass

    threads = [threading.Thread(target=end.wait), threading.Thread(target=work)]
    for thread in threads:
        thread.start()
    sampler = _Sampler(tmp_path)
    for _ in range(20):
        time.sleep(0.005)
        sampler._sample()
    end.set()
    for thread in threads:
        thread.join()
    works = sum(spent for stack, spent in sampler._spent.items() if any("<locals>.work" in name for name in stack))
    waits = sum(spent for stack, spent in sampler._spent.items() if stack[-1].endswith("Condition.wait"))
    assert works > 10 * waits


def test_a_function_counts_once_a_stack_and_a_mere_caller_not_at_all() -> None:
    spent = [(("main", "work", "work", "read"), 1.0), (("main", "work", "write"), 0.5)]
    assert _own(spent) == [("read", 1.0), ("write", 0.5)]
    assert _inclusive(spent) == [("work", 1.5), ("read", 1.0), ("write", 0.5)]
