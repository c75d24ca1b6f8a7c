"""`lsi run` as a job of a running Ray cluster, killed there and submitted again."""

from __future__ import annotations

import os
import subprocess
import sysconfig
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from archives import check_complete, numbered, write_archive
from ray_head import RayHead
from runs import GO_ON, TIMEOUT_S, TOKEN, Lsi

REPOSITORY = Path(__file__).parents[2]
pytestmark = pytest.mark.timeout(400)


def submit(head: RayHead, folder: Path, *command: object, token: bool = True) -> subprocess.Popen[str]:
    """`ray job submit` as a person types it; it shows the job's log and ends with the job."""
    env = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    env |= TOKEN if token else {"RAY_AUTH_MODE": "disabled"}
    ray = [str(Path(sysconfig.get_path("scripts")) / "ray"), "job", "submit", "--address", head.dashboard]
    words = [*ray, "--working-dir", str(folder), "--", *map(str, command)]
    return subprocess.Popen(words, env=env, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def ended(job: subprocess.Popen[str]) -> tuple[int, str]:
    try:
        said, _ = job.communicate(timeout=TIMEOUT_S)
    except subprocess.TimeoutExpired:
        job.kill()
        pytest.fail(f"the job hangs: {job.communicate()[0]}")
    return job.returncode, said


def test_a_job_answers_a_batch(ray_head: RayHead, tmp_path: Path) -> None:
    """The whole checkout as the working dir: it is small, because .venv and what .gitignore names stay behind."""
    rows = numbered(64)
    source, output = write_archive(tmp_path / "in.tar.gz", rows), tmp_path / "out.tar.gz"
    run = ["lsi", "run", source, "-o", output, "-c", "configs/simulated.yaml"]
    code, said = ended(submit(ray_head, REPOSITORY, *run))
    assert code == 0, said
    assert "64 answered, 0 failed" in said
    check_complete(output, rows)


def test_a_refused_archive_fails_its_job(ray_head: RayHead, tmp_path: Path) -> None:
    source = write_archive(tmp_path / "in.tar", numbered(64))
    source.write_bytes(source.read_bytes()[:2000])
    run = ["lsi", "run", source, "-o", tmp_path / "out.tar.gz", "-c", REPOSITORY / "configs/simulated.yaml"]
    code, said = ended(submit(ray_head, tmp_path, *run))
    assert code == 1
    assert "exit code 2" in said
    assert "(truncated)" in said


def test_a_job_killed_and_submitted_again_goes_on(ray_head: RayHead, lsi: Lsi, tmp_path: Path) -> None:
    """The cluster outlives the driver: what the driver owned there goes, the ledger's lock included."""
    rows = numbered(256, max_tokens=64)
    source, output, work = write_archive(tmp_path / "in.tar", rows), tmp_path / "out.tar.gz", tmp_path / "work"
    run = ["lsi", "run", source, "-o", output, "-c", lsi.config(tokens_per_second=64), "--work-dir", work]
    (tmp_path / "empty").mkdir()
    job = submit(ray_head, tmp_path / "empty", *run)
    wait(lambda: len(list(work.glob("batches/*/segments/*.seg"))) >= 2, "the first commits")
    for process in ray_head.members(f"--work-dir {work}"):
        process.kill()
    code, said = ended(job)
    assert code == 1, said
    assert GO_ON in said
    code, said = ended(submit(ray_head, tmp_path / "empty", *run))
    assert code == 0, said
    assert "going on" in said
    run_again = check_complete(output, rows).run_again
    print(f"{run_again} of {len(rows)} rows were run twice")
    assert run_again <= 4 * 32 + 2 * 16  # in the engine, and on their way to the commit


def test_without_the_token_nothing_runs(ray_head: RayHead, tmp_path: Path) -> None:
    touch = ["touch", tmp_path / "ran"]
    code, _ = ended(submit(ray_head, tmp_path, *touch, token=False))
    assert code != 0
    assert not (tmp_path / "ran").exists()


def wait(condition: Callable[[], bool], what: str) -> None:
    deadline = time.monotonic() + TIMEOUT_S
    while not condition():
        assert time.monotonic() < deadline, f"{what} did not come"
        time.sleep(0.2)
