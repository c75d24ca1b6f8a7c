"""The GPUs of this machine, by nvidia-smi: no CUDA context is made, so nothing is taken from what runs there."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass

_QUERY = "name,driver_version,memory.total,memory.used"
_LIMIT_S = 20.0

Ask = Callable[[], str]
"""nvidia-smi's answer, one line per GPU. Raises FileNotFoundError, OSError or subprocess.SubprocessError."""


@dataclass(frozen=True, slots=True)
class Gpu:
    name: str
    driver: str
    memory_mib: int
    used_mib: int


def ask_nvidia_smi() -> str:
    if shutil.which("nvidia-smi") is None:
        raise FileNotFoundError("there is no nvidia-smi")
    command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=_LIMIT_S, check=False)
    if done.returncode != 0:
        raise OSError((done.stdout + done.stderr).strip() or f"nvidia-smi ended with {done.returncode}")
    return done.stdout


def list_gpus(ask: Ask = ask_nvidia_smi) -> list[Gpu]:
    """Of this machine, also those that CUDA_VISIBLE_DEVICES hides. Raises what `ask` raises."""
    gpus = []
    for line in ask().splitlines():
        name, driver, total, used = (part.strip() for part in line.rsplit(",", 3))
        gpus.append(Gpu(name, driver, _number(total), _number(used)))
    return gpus


def visible_gpus(ask: Ask = ask_nvidia_smi) -> list[Gpu]:
    """Those that an engine may use; none where there is no driver."""
    try:
        gpus = list_gpus(ask)
    except (OSError, subprocess.SubprocessError):
        return []
    shown = os.environ.get("CUDA_VISIBLE_DEVICES")
    if shown is None:
        return gpus
    names = [name for name in shown.split(",") if name.strip() not in ("", "-1")]
    return gpus[: len(names)]


def _number(text: str) -> int:
    """0 for "[N/A]", which cards with shared memory answer."""
    return int(text) if text.isdigit() else 0
