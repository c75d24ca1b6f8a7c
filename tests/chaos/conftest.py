"""Options and fixtures of the chaos tests: hours of faults on real parts, run by hand (`make chaos`), not by CI."""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parents[1] / "integration"))

from ray_nodes import RayNodes
from records import keep
from runs import lsi
from s3_server import s3_server

__all__ = ["lsi", "s3_server"]


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("chaos")
    group.addoption("--minutes", type=float, default=5.0, help="how long storms of kills are repeated with new seeds")
    group.addoption("--seed", type=int, help="the first seed, to see a storm again")


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Iterator[None]:  # noqa: ARG001
    report = (yield).get_result()  # type: ignore[attr-defined]
    if report.when == "call" or report.outcome != "passed":
        outcome = report.outcome if report.when == "call" or report.skipped else "not run: its set-up failed"
        keep({"outcome": outcome, "seconds": round(report.duration)})


@pytest.fixture
def seeds(request: pytest.FixtureRequest) -> Iterator[int]:
    """One at least, and more for as long as `--minutes` says."""
    first = request.config.getoption("--seed")
    return _seeds(random.randrange(2**32) if first is None else first, 60 * request.config.getoption("--minutes"))


def _seeds(first: int, seconds: float) -> Iterator[int]:
    end = time.monotonic() + seconds
    seed = first
    while True:
        print(f"seed {seed}", flush=True)
        yield seed
        seed += 1
        if time.monotonic() > end:
            return


@pytest.fixture
def nodes() -> Iterator[RayNodes]:
    cluster = RayNodes()
    try:
        yield cluster
    finally:
        cluster.end()
