"""From our config to vLLM's: the environment, the engine arguments, and what strangers' batches forbid."""

from __future__ import annotations

import os
from typing import Any

from lsi_ray.config import VllmEngine
from lsi_ray.engine.vllm.tiny import ensure_model
from lsi_ray.errors import ConfigError

# Read by vLLM at import or first use, so set before either.
# The connector resolves `lsi:` references only: no request can make vLLM open a URL or a file.
_ENVIRONMENT = {
    "VLLM_MEDIA_CONNECTOR": "lsi",
    "VLLM_MEDIA_URL_ALLOW_REDIRECTS": "0",
    "VLLM_NO_USAGE_STATS": "1",
    "VLLM_ALLOW_INSECURE_SERIALIZATION": "0",
    "VLLM_ALLOW_RUNTIME_LORA_UPDATING": "0",
    "VLLM_LOGGING_LEVEL": "WARNING",
    "VLLM_CONFIGURE_LOGGING": "1",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TOKENIZERS_PARALLELISM": "false",
}

_ARGS = {
    # Every row is rendered in another process: the engine's own processor cache would only duplicate pixels.
    "mm_processor_cache_gb": 0,
    "enable_prompt_embeds": False,
    "trust_remote_code": False,
    "disable_log_stats": True,
    "enable_prefix_caching": True,
    # Rows of an urgent batch pass those that wait in the engine (engine.py).
    "scheduling_policy": "priority",
}


def set_environment(engine: VllmEngine) -> None:
    """Set what vLLM reads from the environment. Call before the first import of vLLM in a process."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    os.environ["VLLM_MEDIA_CONNECTOR"] = "lsi"
    os.environ.update(engine.env)


def engine_args(engine: VllmEngine) -> dict[str, Any]:
    """The arguments for `AsyncEngineArgs`, with the tiny model's name resolved to its folder."""
    # vLLM's messages then name the model as the config does, not by a folder of this machine.
    args = {**_ARGS, "served_model_name": engine.args["model"], **engine.args}
    args["model"] = ensure_model(args["model"])
    if engine.media_io_kwargs:
        args["media_io_kwargs"] = engine.media_io_kwargs
    if engine.reasoning_parser:
        args["reasoning_parser"] = engine.reasoning_parser
    if int(args.get("tensor_parallel_size", 1)) > 1:
        # The vision encoder in data parallel: +37 % on InternVL2-1B at TP 4 (vllm#23909).
        args.setdefault("mm_encoder_tp_mode", "data")
    return args


def _async_engine_args(engine: VllmEngine) -> Any:
    from lsi_ray.engine.vllm.imports import AsyncEngineArgs, StructuredOutputsConfig

    args = engine_args(engine)
    # vLLM makes a dict into its section for other arguments, but not for this one. Its "auto" lets the first schema an
    # engine meets choose the backend for all later ones, so that an answer would depend on the rows before it.
    args["structured_outputs_config"] = StructuredOutputsConfig(
        **{"backend": "xgrammar", **args.get("structured_outputs_config", {})}
    )
    return AsyncEngineArgs(**args)


def settle_platform() -> None:
    """On a node without a GPU, a CUDA build of vLLM knows no platform, and refuses to make any config at all. Rendering
    and finishing belong on such nodes; for them the CPU will do."""
    from lsi_ray.engine.vllm.imports import CpuPlatform, platforms

    if platforms.current_platform.is_unspecified():
        platforms.current_platform = CpuPlatform()


def vllm_config(engine: VllmEngine) -> Any:
    """The full VllmConfig of an engine. Raises ConfigError on an argument this vLLM does not know or refuses."""
    try:
        return _async_engine_args(engine).create_engine_config()
    except (TypeError, ValueError) as error:
        raise ConfigError(f"engine.args: {error}") from error


def renderer_config(engine: VllmEngine) -> Any:
    """The part of the config that rendering needs, made without a GPU (as vLLM's own render server does)."""
    from lsi_ray.engine.vllm.imports import VllmConfig

    settle_platform()
    try:
        args = _async_engine_args(engine)
        model_config = args.create_model_config()
        # Rendering runs no kernels: skip the check of the quantisation against a device that is not here.
        model_config.quantization = None
        return VllmConfig(model_config=model_config, structured_outputs_config=args.structured_outputs_config)
    except (TypeError, ValueError) as error:
        raise ConfigError(f"engine.args: {error}") from error
