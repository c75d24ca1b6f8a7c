"""Everything that lsi_ray imports from vLLM, in one table.

vLLM moves its internals between releases. Each name lists where it lives, newest place first, so that one test (and one
message) tells what a new release moved. Supported: vLLM 0.26 to 0.33.
"""

from __future__ import annotations

from importlib import import_module
from typing import Any

from lsi_ray.errors import ConfigError

_CHAT = "vllm.entrypoints.openai.chat_completion.protocol"
_COMPLETION = "vllm.entrypoints.openai.completion.protocol"
_OLD_PROTOCOL = "vllm.entrypoints.openai.engine.protocol"  # up to 0.31

LOCATIONS: dict[str, tuple[str, ...]] = {
    "AsyncEngineArgs": ("vllm.engine.arg_utils",),
    "AsyncLLM": ("vllm.v1.engine.async_llm",),
    "ChatCompletionLogProb": (_CHAT,),
    "ChatCompletionLogProbs": (_CHAT,),
    "ChatCompletionLogProbsContent": (_CHAT,),
    "ChatCompletionNamedToolChoiceParam": (_CHAT,),
    "ChatCompletionRequest": (_CHAT,),
    "ChatCompletionResponse": (_CHAT,),
    "ChatCompletionResponseChoice": (_CHAT,),
    "ChatMessage": (_CHAT,),
    "CompletionLogProbs": (_COMPLETION,),
    "CompletionRequest": (_COMPLETION,),
    "CompletionResponse": (_COMPLETION,),
    "CompletionResponseChoice": (_COMPLETION,),
    "CpuPlatform": ("vllm.platforms.cpu",),
    "EmbeddingCompletionRequest": ("vllm.entrypoints.pooling.embed.protocol",),
    "EngineDeadError": ("vllm.v1.engine.exceptions",),
    "IncrementalDetokenizer": ("vllm.v1.engine.detokenizer",),
    "MEDIA_CONNECTOR_REGISTRY": ("vllm.multimodal.media",),
    "MediaConnector": ("vllm.multimodal.media",),
    "MediaWithBytes": ("vllm.multimodal.media",),
    "OnlineRenderer": ("vllm.renderers.online_renderer",),
    "PoolingParams": ("vllm.pooling_params",),
    "PromptTokenUsageInfo": ("vllm.entrypoints.serve.engine.protocol", _OLD_PROTOCOL),
    "RequestOutputKind": ("vllm.sampling_params",),
    "StatLoggerBase": ("vllm.v1.metrics.loggers",),
    "StructuredOutputsConfig": ("vllm.config",),
    "ToolCall": ("vllm.entrypoints.generate.base.protocol", _OLD_PROTOCOL),
    "UsageInfo": ("vllm.entrypoints.serve.engine.protocol", _OLD_PROTOCOL),
    "VIDEO_LOADER_REGISTRY": ("vllm.multimodal.video",),
    "VLLMUnprocessableEntityError": ("vllm.exceptions",),
    "VLLMValidationError": ("vllm.exceptions",),
    "VideoSourceMetadata": ("vllm.multimodal.video_decoders.base", "vllm.multimodal.video"),
    "VideoTargetMetadata": ("vllm.multimodal.video_decoders.base", "vllm.multimodal.video"),
    "VllmConfig": ("vllm.config",),
    "XgrammarBackend": ("vllm.v1.structured_output.backend_xgrammar",),
    "get_structured_output_key": ("vllm.v1.structured_output.request",),
    "platforms": ("vllm",),
    "get_video_loader_backend_for_processor": ("vllm.multimodal.video",),
    "has_xgrammar_unsupported_json_features": ("vllm.v1.structured_output.backend_xgrammar",),
    "renderer_from_config": ("vllm.renderers",),
}


def __getattr__(name: str) -> Any:
    if name not in LOCATIONS:
        raise AttributeError(name)
    value = find(name)
    globals()[name] = value
    return value


def find(name: str) -> Any:
    """The object called `name` in the installed vLLM. Raises ConfigError naming every place that was tried."""
    for module in LOCATIONS[name]:
        try:
            return getattr(import_module(module), name)
        except (ModuleNotFoundError, AttributeError):
            continue
    tried = ", ".join(LOCATIONS[name])
    raise ConfigError(f"vLLM {_version()} has no {name} (looked in {tried}); lsi_ray supports vLLM 0.26 to 0.33")


def _version() -> str:
    try:
        return str(import_module("vllm").__version__)
    except ModuleNotFoundError:
        return "(not installed)"
