"""Configuration: one YAML file for a model and its deployment, checked when it is loaded and never later.

Engine arguments keep vLLM's own names and pass through untouched; lsi_ray adds only what vLLM does not know.
"""

from __future__ import annotations

import os
from importlib import resources
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from lsi_ray.errors import ConfigError

# Set by lsi_ray itself, because the stream depends on them (see engine/vllm/config.py).
RESERVED_ENGINE_ARGS = frozenset(
    {"enable_prompt_embeds", "allowed_local_media_path", "trust_remote_code", "enable_lora", "hf_token"}
)


class _Section(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class _Engine(_Section):
    hang_timeout_s: float = Field(default=600.0, gt=0)
    """An engine that has rows and gives no sign of life for so long is killed, and its rows run in a fresh one. A sign
    is a step's end: set it well above the longest single step (a first step may compile kernels for minutes). Slow
    rows are no reason: those of an engine whose steps end may take hours."""


class VllmEngine(_Engine):
    """A vLLM engine; `args` are `vllm.AsyncEngineArgs` by vLLM's names."""

    type: Literal["vllm"] = "vllm"
    args: dict[str, Any]
    """`vllm.AsyncEngineArgs`: model, tensor_parallel_size, max_model_len, max_num_seqs, ..."""
    chat_template: str | None = None
    """Path of a Jinja template; default: the model's own."""
    chat_template_kwargs: dict[str, Any] = {}
    """Defaults for the template, such as `enable_thinking: false`."""
    tool_call_parser: str | None = None
    """vLLM's name of a tool parser (`hermes`, `qwen3_xml`, ...); requests with `tools` need one."""
    reasoning_parser: str | None = None
    """vLLM's name of a reasoning parser (`qwen3`, `deepseek_r1`, ...)."""
    media_io_kwargs: dict[str, dict[str, Any]] = {}
    """Per modality, as vLLM's `--media-io-kwargs`: `{video: {num_frames: 32, fps: 2}}`."""
    env: dict[str, str] = {}
    """Environment of the engine and of the render workers, such as `VLLM_CPU_KVCACHE_SPACE`."""
    device: Literal["cpu", "cuda"] = "cuda"
    schema_cpu_s: int = Field(default=40, ge=1)
    """Seconds of CPU, over up to 8 cores, that compiling one JSON schema may take before its row is refused. With a
    vocabulary of 150,000 tokens each string of another `maxLength` over 100 costs 4 to 7 of them, others are cheap."""

    @model_validator(mode="after")
    def _check(self) -> VllmEngine:
        if not self.args.get("model"):
            raise ValueError("engine.args.model is missing: the path or Hugging Face id of the weights")
        if reserved := RESERVED_ENGINE_ARGS & self.args.keys():
            raise ValueError(f"engine.args: {', '.join(sorted(reserved))} cannot be set for batches from strangers")
        return self

    @property
    def gpus(self) -> int:
        """GPUs of one replica: tensor x pipeline parallel; 0 on CPU."""
        if self.device == "cpu":
            return 0
        return int(self.args.get("tensor_parallel_size", 1)) * int(self.args.get("pipeline_parallel_size", 1))

    @property
    def max_num_seqs(self) -> int:
        return int(self.args.get("max_num_seqs", 256))


class SimulatedEngine(_Engine):
    """A timing model with deterministic answers: dry runs, load and fault tests. It never computes anything."""

    type: Literal["simulated"] = "simulated"
    max_num_seqs: int = Field(default=64, ge=1)
    """Rows running at once."""
    tokens_per_second: float = Field(default=0.0, ge=0)
    """Output tokens per second and row; 0 answers at once."""
    prefill_tokens_per_second: float = Field(default=0.0, ge=0)
    start_seconds: float = Field(default=0.0, ge=0)
    gpus: int = Field(default=0, ge=0)
    allow_scripts: bool = False
    """Obey `[[lsi:crash]]`, `[[lsi:hang]]`, `[[lsi:slow:MS]]` and the like in a prompt; for fault tests."""


class Replicas(_Section):
    min: int = Field(default=1, ge=1)
    max: int = Field(default=1, ge=1)

    @model_validator(mode="after")
    def _check(self) -> Replicas:
        if self.max < self.min:
            raise ValueError(f"replicas: max {self.max} is below min {self.min}")
        return self


class Render(_Section):
    """The CPU pool that reads media, decodes, applies the chat template and tokenises."""

    min: int = Field(default=1, ge=1)
    max: int | None = Field(default=None, ge=1)
    """Default: the CPUs of the cluster, less one per replica."""
    media_cache_bytes: int = Field(default=256 * 2**20, ge=0)
    """Decoded media each worker keeps, so that rows that share a file decode it once."""


class Limits(_Section):
    max_output_tokens: int = Field(default=131_072, ge=1)
    max_line_bytes: int = Field(default=16 * 2**20, ge=1024)
    max_input_bytes: int = Field(default=5_000_000_000, ge=1024)


class Config(_Section):
    model: str
    """The name that requests give in `body.model`."""
    engine: Annotated[VllmEngine | SimulatedEngine, Field(discriminator="type")]
    revision: str | None = None
    """Recorded in the manifest: the commit of the weights."""
    replicas: Replicas = Replicas()
    render: Render = Render()
    limits: Limits = Limits()
    shard_rows: int = Field(default=64, ge=1, le=1024)
    """Rows leased, retried and committed together, about: a group that shares a prefix stays whole up to twice that."""
    shard_bytes: int = Field(default=32 * 2**20, ge=1)
    """The same for media, whose rendered rows weigh megabytes: bytes of pixels, by estimate from the files."""
    deduplicate: bool = True
    """Compute rows of a batch that ask the same at temperature 0 once, and say so in the `usage` of the others."""


def default_config_path() -> Path:
    """`configs/tiny.yaml`, the embedded default: a random-weight Qwen2.5-VL that answers on any CPU."""
    return Path(str(resources.files("lsi_ray").joinpath("configs/tiny.yaml")))


def load_config(path: Path | None) -> Config:
    """Read and check a config; None is the embedded default. Raises ConfigError naming the file and the field."""
    path = path or default_config_path()
    try:
        data = yaml.safe_load(path.read_text())
    except FileNotFoundError:
        raise ConfigError(f"no such config: {path}") from None
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"{path} cannot be read as a config: {error}") from None
    except yaml.YAMLError as error:
        raise ConfigError(f"{path}: not YAML: {error}") from None
    return parse_config(data, source=str(path))


def parse_config(data: Any, *, source: str) -> Config:
    try:
        return Config.model_validate(data)
    except ValidationError as error:
        lines = [f"{'.'.join(str(part) for part in e['loc'])}: {e['msg']}" for e in error.errors()]
        raise ConfigError(f"{source}: " + "; ".join(lines)) from None


def cache_folder() -> Path:
    """`LSI_CACHE`, else the user's cache directory: models built on first use, default work dirs."""
    if configured := os.environ.get("LSI_CACHE"):
        return Path(configured)
    base = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return Path(base).expanduser() / "lsi"
