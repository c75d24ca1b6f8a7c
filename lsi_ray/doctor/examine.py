"""All checks of a machine, at once: the slowest, importing vLLM, takes as long as the others together."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path

from lsi_ray.config import Config, cache_folder
from lsi_ray.doctor import machine, network, software
from lsi_ray.doctor.check import Check, failed
from lsi_ray.storage.location import Location

Examination = tuple[str, Callable[[], Check | None]]

_PORTS = ((8000, "`lsi serve`"), (6379, "`ray start --head`"), (8265, "Ray's dashboard"))


def examine(config: Config, work_dir: Path | None, storage: Location | None) -> list[Check]:
    """In the order in which they are shown. None of them raises."""
    wanted = examinations(config, work_dir, storage)
    with ThreadPoolExecutor(len(wanted)) as pool:
        running = [(name, pool.submit(look)) for name, look in wanted]
        found = [_outcome(name, future.result) for name, future in running]
    return [check for check in found if check is not None]


def examinations(config: Config, work_dir: Path | None, storage: Location | None) -> list[Examination]:
    folder = work_dir or cache_folder()
    disk_advice = "--work-dir on a larger disk, or LSI_CACHE for the default of all"
    ray_advice = "Ray writes its logs and what does not fit its memory there: a larger disk, or RAY_TMPDIR"
    wanted: list[Examination] = [
        ("system", machine.system),
        ("GPU", lambda: software.gpus(config)),
        ("vLLM", lambda: software.vllm(config)),
        ("model", lambda: software.model(config)),
        ("Ray", software.ray),
        ("memory", machine.memory_here),
        ("open files", machine.open_files),
        ("work dir", lambda: machine.disk("work dir", folder, disk_advice)),
        (
            "temp dir",
            lambda: machine.disk("temp dir", Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())), ray_advice),
        ),
        ("clock", machine.clock),
    ]
    wanted += [(f"port {number}", partial(machine.port, number, use)) for number, use in _PORTS]
    if address := _remote(os.environ.get("RAY_ADDRESS")):
        wanted.append(("RAY_ADDRESS", lambda: network.ray_address(address)))
    if url := os.environ.get("LSI_URL"):
        wanted.append(("service", lambda: network.service(url)))
    if storage is not None:
        wanted.append(("storage", lambda: network.storage(storage)))
        if storage.url is not None:
            wanted.append(("time", lambda: network.skew(storage)))
    return wanted


def _remote(address: str | None) -> str | None:
    return address if address not in (None, "", "local", "auto") else None


def _outcome(name: str, result: Callable[[], Check | None]) -> Check | None:
    try:
        return result()
    except Exception as error:  # a check that breaks is a finding, and must not hide the others
        return failed(name, f"it could not be looked at: {type(error).__name__}: {error}", "please report this")
