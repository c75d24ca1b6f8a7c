"""GPUs and their driver, torch and vLLM, Ray: whether they are there and fit one another and the config."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from lsi_ray.config import Config, VllmEngine
from lsi_ray.doctor.check import Check, failed, ok, warning
from lsi_ray.doctor.gpus import Ask, Gpu, ask_nvidia_smi, list_gpus, visible_gpus

_RAY = "2.60."
_LOOK_S = 180.0
_BUSY_MIB = 2048


@dataclass(frozen=True, slots=True)
class Health:
    """What a fresh process found that imported torch and vLLM (engine/vllm/health.py)."""

    vllm: str = ""
    torch: str = ""
    cuda: str = ""
    """The CUDA that torch was built for; empty for a CPU build."""
    gpus: int = 0
    """That torch can use."""
    missing: tuple[str, ...] = ()
    """Names that lsi_ray needs of vLLM, and that are not where they should be."""
    error: str = ""


def look_at_vllm() -> Health:
    """In a process of its own: the import takes 12 s of CPU, and a broken one may take its process with it."""
    command = [sys.executable, "-m", "lsi_ray.engine.vllm.health"]
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=_LOOK_S, check=False)
    except subprocess.TimeoutExpired:
        return Health(error=f"importing it was not done after {_LOOK_S:.0f} s")
    last = done.stdout.strip().splitlines()[-1:]
    try:
        found = json.loads(last[0]) if last else {}
    except ValueError:
        found = {}
    if done.returncode != 0 or not found:
        words = done.stderr.strip().splitlines()[-1:] or [f"exit code {done.returncode}"]
        return Health(error=words[0][:300])
    return Health(**{**found, "missing": tuple(found["missing"])})


def gpus(config: Config, ask: Ask = ask_nvidia_smi) -> Check:
    needed = config.engine.gpus
    try:
        found = list_gpus(ask)
    except FileNotFoundError:
        if not needed:
            return ok("GPU", "none; this config needs none")
        return failed("GPU", "there is no NVIDIA driver (no nvidia-smi)", _NO_GPU)
    except (OSError, subprocess.SubprocessError) as error:
        return failed(
            "GPU", f"nvidia-smi fails: {str(error)[:200]}", "mend the driver: `nvidia-smi`, then `dmesg | tail`"
        )
    return _found_gpus(found, visible_gpus(ask), needed)


_NO_GPU = (
    "on a machine with one, install its driver; in a container, start it with --gpus all; on a cluster, run where the "
    "GPUs are: `ray job submit -- lsi doctor -c CONFIG`; a config with device: cpu needs none"
)


def _found_gpus(found: list[Gpu], visible: list[Gpu], needed: int) -> Check:
    if not found:
        return failed("GPU", "nvidia-smi lists none", _NO_GPU) if needed else ok("GPU", "none; this config needs none")
    kinds = ", ".join(sorted({f"{gpu.name} of {gpu.memory_mib / 1024:,.0f} GiB" for gpu in found}))
    words = f"{len(found)} x {kinds}, driver {found[0].driver}"
    if len(visible) < needed:
        advice = (
            "tensor_parallel_size x pipeline_parallel_size must fit one machine; or CUDA_VISIBLE_DEVICES hides some"
        )
        return failed(
            "GPU", f"{words}; {len(visible)} may be used, and a replica of this config takes {needed}", advice
        )
    if needed and (busy := [gpu for gpu in found if gpu.used_mib > _BUSY_MIB]):
        advice = "vLLM wants its share of all of the memory, and does not start beside others: see `nvidia-smi` for who"
        return warning("GPU", f"{words}; {len(busy)} in use: {max(gpu.used_mib for gpu in busy):,} MiB", advice)
    return ok("GPU", words)


def vllm(config: Config, look: Callable[[], Health] = look_at_vllm) -> Check:
    if not isinstance(config.engine, VllmEngine):
        return ok("vLLM", "not needed: the engine of this config is simulated")
    found = look()
    words = f"vLLM {found.vllm}, torch {found.torch}"
    if found.error:
        advice = "`pip install '.[gpu]'` (or '.[cpu]') in a fresh environment; the packaging/ folder pins what fits"
        return failed("vLLM", f"it cannot be imported: {found.error}", advice)
    if found.missing:
        advice = "install a vLLM from 0.26 to 0.33, which this lsi_ray knows"
        return failed("vLLM", f"{words}: not found in it: {', '.join(found.missing)}", advice)
    if config.engine.device == "cuda" and not found.cuda:
        return failed("vLLM", f"{words}, built for the CPU, and the config says device: cuda", "`pip install '.[gpu]'`")
    if config.engine.device == "cuda" and not found.gpus:
        advice = f"torch for CUDA {found.cuda} needs a newer driver, or sees no GPU: compare with the line of the GPU"
        return failed("vLLM", f"{words} for CUDA {found.cuda}, and torch can use no GPU", advice)
    return ok("vLLM", words + (f" for CUDA {found.cuda}, {found.gpus} GPUs" if found.cuda else ", for the CPU"))


def ray(installed: Callable[[str], str] = version) -> Check:
    try:
        there = installed("ray")
    except PackageNotFoundError:
        return failed("Ray", "it is not installed", f"`pip install 'ray[data,serve]=={_RAY}*'`")
    if not there.startswith(_RAY):
        advice = f"install {_RAY}*; a cluster and all that join it must have one version of Ray and of Python"
        return failed("Ray", f"version {there}; lsi_ray is made for {_RAY}*", advice)
    return ok("Ray", f"version {there}")


def model(config: Config, cache: Path | None = None) -> Check | None:
    """Whether the weights are here; None where there are none or they are made on first use."""
    engine = config.engine
    if not isinstance(engine, VllmEngine) or engine.args["model"].startswith("lsi/"):
        return None
    name = str(engine.args["model"])
    if Path(name).is_dir():
        return ok("model", f"{name} is a folder here")
    cache = cache or _hub_cache()
    held = cache / f"models--{name.replace('/', '--')}" / "snapshots"
    if held.is_dir() and any(held.iterdir()):
        return ok("model", f"{name} is in {cache}")
    if engine.args.get("load_format") == "dummy":
        return ok("model", f"{name} with made-up weights (load_format: dummy)")
    advice = (
        f"fetch it once: `hf download {name}`, or name a folder that holds it; HF_HOME on a disk that all nodes see"
    )
    return warning("model", f"{name} is not in {cache}: it is downloaded on first use, if there is a network", advice)


def _hub_cache() -> Path:
    if path := os.environ.get("HF_HUB_CACHE"):
        return Path(path)
    return Path(os.environ.get("HF_HOME", "~/.cache/huggingface")).expanduser() / "hub"
