"""GPU utilisation, power and memory by nvidia-smi, twice a second; nothing where there is no nvidia-smi."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from statistics import fmean

_QUERY = "utilization.gpu,power.draw,memory.used"


class GpuSampler:
    """`with GpuSampler() as gpu: ...`; afterwards `gpu.means(begin, end)`."""

    def __init__(self) -> None:
        self._samples: list[tuple[float, tuple[float, ...]]] = []
        self._process: subprocess.Popen[str] | None = None
        self._thread: threading.Thread | None = None

    def __enter__(self) -> GpuSampler:
        if shutil.which("nvidia-smi") is None:
            return self
        command = ["nvidia-smi", f"--query-gpu={_QUERY}", "--format=csv,noheader,nounits", "-lms", "500"]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self._thread = threading.Thread(target=self._read, name="nvidia-smi", daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._process is not None and self._thread is not None:
            self._process.terminate()
            self._thread.join()

    def means(self, begin: float, end: float) -> dict[str, float] | None:
        """Over all GPUs and the samples between two times: utilisation in percent, power in W, memory in MiB."""
        taken = [values for at, values in self._samples if begin <= at <= end]
        if not taken:
            return None
        utilisation, power, memory = (fmean(column) for column in zip(*taken, strict=True))
        return {"utilisation": utilisation, "power_w": power, "memory_mib": memory}

    def _read(self) -> None:
        assert self._process is not None
        assert self._process.stdout is not None
        for line in self._process.stdout:
            try:
                values = tuple(float(value) for value in line.split(","))
            except ValueError:  # "[N/A]" where a card does not tell its power
                continue
            self._samples.append((time.time(), values))
