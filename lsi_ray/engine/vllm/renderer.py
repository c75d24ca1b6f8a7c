"""Rendering: a request to the engine's finished input (tokens, processed pixels, parameters), without a GPU."""

from __future__ import annotations

import inspect
import re
from typing import Any

import jinja2
import numpy as np
from pydantic import ValidationError

from lsi_ray.archive.rows import Request
from lsi_ray.config import VllmEngine
from lsi_ray.engine import Payload, ReadMedia
from lsi_ray.engine.vllm import media
from lsi_ray.engine.vllm.config import renderer_config
from lsi_ray.engine.vllm.embedding import render_embedding
from lsi_ray.engine.vllm.grammars import Grammars
from lsi_ray.engine.vllm.imports import (
    ChatCompletionRequest,
    CompletionRequest,
    OnlineRenderer,
    RequestOutputKind,
    VLLMUnprocessableEntityError,
    VLLMValidationError,
    renderer_from_config,
)
from lsi_ray.engine.vllm.wire import Prompt, Rendered, dumps
from lsi_ray.errors import RowError

# What vLLM raises for a request it refuses.
REFUSALS = (
    VLLMValidationError,
    VLLMUnprocessableEntityError,
    ValidationError,
    ValueError,
    TypeError,
    jinja2.TemplateError,
    OverflowError,
)


class VllmRenderer:
    """Implements `lsi_ray.engine.Renderer` with vLLM's GPU-less renderer."""

    def __init__(self, engine: VllmEngine, model: str, media_cache_bytes: int) -> None:
        config = renderer_config(engine)
        self._model = model
        self._model_config = config.model_config
        self._online = make_online_renderer(engine, config)
        self._defaults = config.model_config.get_diff_sampling_param()
        self._cap = _max_tokens_cap(config.model_config, self._defaults)
        self._placeholder_ids = placeholder_ids(config.model_config.hf_config.to_dict())
        self._grammars = Grammars(config, self._online.renderer.get_tokenizer(), engine.schema_cpu_s)
        self._decoded = media.DecodedMedia(media_cache_bytes)

    async def render(self, request: Request, read_media: ReadMedia, caller: str = "") -> Payload:
        media.row_media.set([(ref, read_media(ref)) for ref in request.media])
        media.decoded_media.set(self._decoded)
        try:
            rendered = await self._render(request, caller)
        except RowError:
            raise
        except REFUSALS as error:
            raise refusal(error) from None
        return dumps(rendered)

    async def _render(self, request: Request, caller: str) -> Rendered:
        if request.url == "/v1/chat/completions":
            return await self._chat(request, caller)
        if request.url == "/v1/completions":
            return await self._completion(request, caller)
        rendered = await render_embedding(self._online, self._model_config.runner_type, request)
        for prompt in rendered.prompts:
            check_placeholders(request, prompt.input, self._placeholder_ids)
        return rendered

    async def _chat(self, request: Request, caller: str) -> Rendered:
        chat = ChatCompletionRequest.model_validate(request.body)
        result = await self._online.render_chat(chat, skip_mm_cache=True)
        if not isinstance(result, tuple):
            raise _error_response(result)
        _, (engine_input,) = result
        check_placeholders(request, engine_input, self._placeholder_ids)
        wanted = chat.max_completion_tokens if chat.max_completion_tokens is not None else chat.max_tokens
        params = chat.to_sampling_params(self._max_tokens(wanted, engine_input), self._defaults)
        self._grammars.check(params, "response_format" if "response_format" in request.body else "tools", caller)
        prompt = Prompt(engine_input, _tokens_out(params), self._reasoning(chat, engine_input))
        return Rendered(request.url, (prompt,), chat if self._online.parser is not None else None)

    async def _completion(self, request: Request, caller: str) -> Rendered:
        completion = CompletionRequest.model_validate(request.body)
        result = await self._online.render_completion(completion, skip_mm_cache=True)
        if not isinstance(result, list):
            raise _error_response(result)
        for one in result:
            check_placeholders(request, one, self._placeholder_ids)
        prompts = tuple(self._completion_prompt(completion, one, caller) for one in result)
        return Rendered(request.url, prompts, None)

    def _completion_prompt(self, completion: CompletionRequest, engine_input: Any, caller: str) -> Prompt:
        max_tokens = self._max_tokens(completion.max_tokens, engine_input)
        params = completion.to_sampling_params(max_tokens, self._defaults)
        self._grammars.check(params, "response_format", caller)
        return Prompt(engine_input, _tokens_out(params), {})

    def _max_tokens(self, wanted: int | None, engine_input: Any) -> int:
        """As vLLM's server: what was asked for, else the model's default, within the context and the operator's cap."""
        room: int = self._model_config.max_model_len - len(engine_input["prompt_token_ids"])
        if room <= 0:
            limit = self._model_config.max_model_len
            raise RowError(
                "context_length_exceeded", f"the prompt alone fills the model's {limit} tokens", param="messages"
            )
        wanted = wanted if wanted is not None else self._defaults.get("max_tokens")
        return min(int(limit) for limit in (room, wanted, self._cap) if limit is not None)

    def _reasoning(self, chat: ChatCompletionRequest, engine_input: Any) -> dict[str, Any]:
        """What the engine must know to hold a grammar back until the model stops reasoning."""
        parser_class = self._online.parser
        if parser_class is None or parser_class.reasoning_parser_cls is None:
            return {}
        kwargs = template_kwargs(self._online, chat)
        parser = parser_class(
            self._online.renderer.get_tokenizer(),
            chat.tools,
            chat_template_kwargs=kwargs,
            model_config=self._model_config,
        )
        if not hasattr(chat, "resolve_reasoning_ended"):  # vLLM before 0.30 asks the parser itself
            return {"reasoning_parser_kwargs": {"chat_template_kwargs": kwargs}}
        ended = chat.resolve_reasoning_ended(parser, list(engine_input["prompt_token_ids"]))
        return {"reasoning_ended": ended, "reasoning_parser_kwargs": {"chat_template_kwargs": kwargs}}


def _max_tokens_cap(model_config: Any, defaults: dict[str, Any]) -> int | None:
    """The most output tokens a generation config allows, where the operator chose one."""
    if model_config.generation_config not in ("auto", "vllm"):
        return defaults.get("max_tokens")
    return (getattr(model_config, "override_generation_config", None) or {}).get("max_new_tokens")


def make_online_renderer(engine: VllmEngine, config: Any) -> OnlineRenderer:
    """vLLM's OnlineRenderer; keywords that this version does not know yet are left out."""
    wanted = {
        "request_logger": None,
        "chat_template": _read_template(engine.chat_template),
        "chat_template_content_format": "auto",
        # Our own allowlist (archive/fields.py) has bounded these before; vLLM would refuse them all.
        "trust_request_mm_kwargs": True,
        "enable_auto_tools": engine.tool_call_parser is not None,
        "tool_parser": engine.tool_call_parser,
        "reasoning_parser": engine.reasoning_parser or "",
        "default_chat_template_kwargs": engine.chat_template_kwargs,
    }
    known = inspect.signature(OnlineRenderer.__init__).parameters
    keywords = {name: value for name, value in wanted.items() if name in known}
    return OnlineRenderer(model_config=config.model_config, renderer=renderer_from_config(config), **keywords)


def template_kwargs(online: OnlineRenderer, chat: ChatCompletionRequest) -> dict[str, Any]:
    """What the chat template was rendered with; parsers read `enable_thinking` and its like from it."""
    params = chat.build_chat_params(online.chat_template, online.chat_template_content_format)
    kwargs: dict[str, Any] = params.with_defaults(online.default_chat_template_kwargs).chat_template_kwargs
    return kwargs


def refusal(error: Exception) -> RowError:
    """vLLM's refusal of a request, as a row error in OpenAI's words."""
    if isinstance(error, ValidationError):
        first = error.errors()[0]
        param = ".".join(str(part) for part in first["loc"])
        return RowError("invalid_value", f"{param}: {first['msg']}", param=param)
    message = str(error) or type(error).__name__
    code = "context_length_exceeded" if "maximum context length" in message else "invalid_request"
    return RowError(code, message, param=getattr(error, "parameter", None))


def _error_response(response: Any) -> RowError:
    error = response.error
    return RowError("invalid_request", error.message, param=error.param, status=int(error.code))


def _tokens_out(params: Any) -> Any:
    """Final token ids only; text in the engine just for rows that stop on strings or ask for logprobs."""
    params.output_kind = RequestOutputKind.FINAL_ONLY
    params.detokenize = bool(params.stop) or params.logprobs is not None
    return params


def placeholder_ids(hf_config: dict[str, Any]) -> list[int]:
    """The token ids that stand for media in a prompt: `image_token_id` and its like, which each model names its way.
    Not those that stand around media (`image_start_token_id`): they are in every prompt that has some."""
    configs = (hf_config, *(hf_config.get(name) or {} for name in ("text_config", "thinker_config")))
    found = {
        value
        for config in configs
        for name, value in config.items()
        if isinstance(value, int) and _MEDIA_TOKEN.fullmatch(name)
    }
    return sorted(found)


_MEDIA_TOKEN = re.compile(
    r"(ctx_)?(image|video|audio|img|media|patch)(_(context|pad|placeholder|replacement))?_token_(id|index)"
)


def check_placeholders(request: Request, engine_input: Any, ids: list[int]) -> None:
    """As many media in as placeholders out: a template that drops images would answer without them. And no placeholder
    but those: one written in the text would take an image to itself, or an engine down (CVE-2026-44222)."""
    placeholders = engine_input.get("mm_placeholders") or {}
    for kind in ("image", "video"):
        sent = sum(ref.kind == kind for ref in request.media)
        rendered = len(placeholders.get(kind, ()))
        if sent != rendered:
            message = f"the request holds {sent} {kind}(s), but the chat template placed {rendered}"
            raise RowError("media_not_rendered", message, param="messages")
    stray = np.isin(np.asarray(engine_input["prompt_token_ids"]), ids)
    for ranges in placeholders.values():
        for one in ranges:
            stray[one.offset : one.offset + one.length] = False
    if stray.any():
        message = "the text holds a placeholder token of the model's, which stands for an image or a video"
        raise RowError("placeholder_in_text", message, param="messages")


def _read_template(path: str | None) -> str | None:
    if path is None:
        return None
    with open(path, encoding="utf-8") as file:
        return file.read()
