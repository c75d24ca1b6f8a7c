"""A disk that is full: nothing torn is ever read, it is said, and all goes on when there is space again."""

from __future__ import annotations

import os
import random
import subprocess
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
from archives import Json, chat, check_complete, write_archive
from kills import LedgerView, write_config
from ray_nodes import RayNodes
from records import record
from runs import Lsi
from s3_server import S3Server
from served import Served

ROWS = 600
FULL_S = 40
MIB = 2**20
pytestmark = pytest.mark.timeout(1200)


class Disk:
    """A file system of its own, that a file of ballast fills to the last page."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._ballast = path / "ballast"

    def fill(self, leave: int = 0) -> None:
        with self._ballast.open("ab") as file, suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(65536))
        with self._ballast.open("ab") as file, suppress(OSError):
            while True:
                os.write(file.fileno(), bytes(4096))
        if leave:
            os.truncate(self._ballast, max(0, self._ballast.stat().st_size - leave))

    def free(self) -> None:
        self._ballast.unlink()


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Disk]:
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], capture_output=True, check=False
    )
    if mounted.returncode:
        pytest.skip("mounting a small file system takes root")
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True)


def rows(size: int = 3000) -> list[Json]:
    """That do not compress: an archive of 600 is 2 MB, and its answers are small."""
    noise = random.Random(1)
    return [chat(f"r{number}", noise.randbytes(size // 2).hex(), max_tokens=64) for number in range(ROWS)]


def test_staging(lsi: Lsi, s3_server: S3Server, disk: Disk, nodes: RayNodes) -> None:
    requests = rows()
    write_archive(s3_server.path("disk-in.tar.gz"), requests)
    urls = {"IN": s3_server.presign("GET", "disk-in.tar.gz"), "OUT": s3_server.presign("PUT", "disk-out.tar.gz")}
    command = ["run", "env:IN", "-o", "env:OUT", "--work-dir", disk.path / "work", "--json"]
    command += ["-c", write_config(lsi.folder)]
    disk.fill(leave=MIB)
    refused = lsi(*command, **urls)
    print(f"code {refused.code} after {refused.seconds:.1f} s: {refused.stderr.splitlines()[-2:]}")
    print(refused.stdout)
    assert refused.code == 1
    assert refused.object["error"]["code"] == "work_dir_full"
    disk.free()
    finished = lsi(*command, **urls, **nodes.driver_environment)
    assert finished.code == 0, finished.stderr
    again = check_complete(s3_server.path("disk-out.tar.gz"), requests).run_again
    assert again == 0
    note = f"refused as {refused.object['error']['code']}; the same command, with space, went on"
    record("disk full at staging", ROWS, run_again=again, seconds=refused.seconds, note=note)


@pytest.mark.parametrize("leave", [0, MIB // 2], ids=["full", "a little left"])
def test_segments_and_ledger_of_a_run(lsi: Lsi, disk: Disk, nodes: RayNodes, leave: int) -> None:
    requests, work = rows(), disk.path / "work"
    source, output = write_archive(lsi.folder / "in.tar", requests), lsi.folder / "out.tar"
    command = ["run", source, "-o", output, "--work-dir", work, "--json", "-c", write_config(lsi.folder)]
    ledger = LedgerView(work)
    running = lsi.start(*command, **nodes.driver_environment)
    running.until(lambda: ledger.counts().answered > ROWS // 4, "a quarter")
    at_stake = ledger.counts().in_flight
    disk.fill(leave)
    filled = time.monotonic()
    while running.process.poll() is None and time.monotonic() - filled < FULL_S:
        time.sleep(0.5)
    waited = running.process.poll() is None
    print(running.stderr.splitlines()[-3:])
    disk.free()
    if running.process.poll() is not None:
        running = lsi.start(*command, **nodes.driver_environment)
    finished = running.wait()
    assert finished.code == 0, finished.stderr
    found = check_complete(output, requests)
    said = "it waited, and went on by itself" if waited else "it ended, and the same command went on"
    what = f"disk full for {FULL_S} s under `lsi run`" + (f", {leave // 1024} KiB left" if leave else "")
    record(what, ROWS, run_again=found.run_again, in_flight=at_stake, note=said)
    assert not found.errors
    assert not list(work.glob("batches/*"))


def test_a_batch_of_the_service(lsi: Lsi, s3_server: S3Server, disk: Disk, nodes: RayNodes) -> None:
    requests = rows()
    write_archive(s3_server.path("served-in.tar.gz"), requests)
    served = Served(lsi, s3_server, nodes, work=disk.path / "work")
    batch_id = served.submit("served")
    ledger = LedgerView(served.work)
    while ledger.counts().answered < ROWS // 4:
        time.sleep(0.2)
    at_stake = ledger.counts().in_flight
    disk.fill()
    seen = set()
    for _ in range(FULL_S):
        view = served.view(batch_id)
        if view is not None:
            seen.add((view["status"], str((view.get("waiting") or {}).get("reason"))))
        time.sleep(1)
    print(f"with a full disk: {seen}")
    refused = served.try_submit("served")
    print(f"a batch meanwhile: {refused.status_code} {refused.text[:200]}")
    disk.free()
    served.wait(batch_id, "completed", seconds=400)
    found = check_complete(s3_server.path("served-out.tar.gz"), requests)
    assert ("in_progress", "no_space") in seen
    said = f"the batch said no_space; submissions meanwhile: {refused.status_code}"
    record(
        f"disk full for {FULL_S} s under `lsi serve`", ROWS, run_again=found.run_again, in_flight=at_stake, note=said
    )
    assert not found.errors
    assert refused.status_code in (503, 507)
    served.stop()
