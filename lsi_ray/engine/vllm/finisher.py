"""Finishing: token ids to text, reasoning and tool calls to vLLM's own OpenAI response bodies.

Text comes from vLLM's incremental detokenizer and messages from its parsers, so an answer reads as `vllm serve` would
have sent it. The engine process does none of this.
"""

from __future__ import annotations

import time
import uuid
from types import SimpleNamespace
from typing import Any

from lsi_ray.config import VllmEngine
from lsi_ray.engine import Answer, Payload
from lsi_ray.engine.vllm.config import renderer_config
from lsi_ray.engine.vllm.embedding import embedding_body
from lsi_ray.engine.vllm.imports import (
    ChatCompletionLogProb,
    ChatCompletionLogProbs,
    ChatCompletionLogProbsContent,
    ChatCompletionNamedToolChoiceParam,
    ChatCompletionResponse,
    ChatCompletionResponseChoice,
    ChatMessage,
    CompletionLogProbs,
    CompletionResponse,
    CompletionResponseChoice,
    IncrementalDetokenizer,
    PromptTokenUsageInfo,
    ToolCall,
    UsageInfo,
)
from lsi_ray.engine.vllm.renderer import make_online_renderer, template_kwargs
from lsi_ray.engine.vllm.wire import Choice, Generated, Output, loads

_FLOOR = -9999.0  # OpenAI's floor for a log probability; JSON has no -inf


class VllmFinisher:
    """Implements `lsi_ray.engine.Finisher`."""

    def __init__(self, engine: VllmEngine, model: str) -> None:
        config = renderer_config(engine)
        self._model = model
        self._model_config = config.model_config
        self._online = make_online_renderer(engine, config)
        self._tools = engine.tool_call_parser is not None
        self._reasons = bool(engine.reasoning_parser)

    def finish(self, generated: Payload, request_id: str) -> Answer:
        result: Generated = loads(generated)
        body = self._body(result, request_id)
        return Answer(
            body=body,
            prompt_tokens=sum(output.prompt_tokens for output in result.outputs),
            completion_tokens=sum(len(choice.token_ids) for output in result.outputs for choice in output.choices),
            cached_tokens=sum(output.cached_tokens for output in result.outputs),
        )

    def _body(self, result: Generated, request_id: str) -> bytes:
        if result.url == "/v1/embeddings":
            return embedding_body(result, request_id, self._model)
        if result.url == "/v1/completions":
            return self._completion(result, request_id)
        return self._chat(result, request_id)

    def _chat(self, result: Generated, request_id: str) -> bytes:
        (output,) = result.outputs
        said = [self._chat_choice(result, output, choice) for choice in output.choices]
        response = ChatCompletionResponse(
            id=request_id,
            created=int(time.time()),
            model=self._model,
            choices=[choice for choice, _ in said],
            usage=_usage(result, sum(tokens for _, tokens in said) if self._reasons else None),
        )
        return _encoded(response)

    def _chat_choice(
        self, result: Generated, output: Output, choice: Choice
    ) -> tuple[ChatCompletionResponseChoice, int]:
        """The choice, and how many of its tokens were reasoning."""
        text = self._text(result, output, choice)
        message, called, reasoned = ChatMessage(role="assistant", content=text), False, 0
        if self._online.parser is not None and result.request is not None:
            message, called, reasoned = self._parse(result.request, output, choice, text)
        return ChatCompletionResponseChoice(
            index=choice.index,
            message=message,
            logprobs=self._logprobs(result, choice),
            finish_reason="tool_calls" if called else choice.finish_reason or "stop",
            stop_reason=choice.stop_reason,
        ), reasoned

    def _parse(self, request: Any, output: Output, choice: Choice, text: str) -> tuple[ChatMessage, bool, int]:
        """The assistant message, whether its finish_reason is `tool_calls`, and its reasoning tokens.

        Which calls count, and when they are the reason, is as in vLLM's OpenAIServingChat.
        """
        parser = self._online.parser(
            self._online.renderer.get_tokenizer(),
            request.tools,
            chat_template_kwargs=template_kwargs(self._online, request),
            model_config=self._model_config,
        )
        if hasattr(parser, "set_prompt_token_ids"):
            parser.set_prompt_token_ids(output.prompt_tail)
        reasoning, content, calls = parser.parse(
            text, request, enable_auto_tools=self._tools, model_output_token_ids=choice.token_ids
        )
        named = isinstance(request.tool_choice, ChatCompletionNamedToolChoiceParam)
        required = request.tool_choice == "required"
        auto = self._tools and bool(request.tools) and request.tool_choice in ("auto", None)
        calls = list(calls or ()) if named or required or auto else []
        if request.parallel_tool_calls is False:
            calls = calls[:1]
        message = ChatMessage(
            role="assistant",
            reasoning=reasoning if request.include_reasoning else None,
            content=(content or "") if named or required else content,
            tool_calls=[ToolCall(id=call.id or f"chatcmpl-tool-{uuid.uuid4().hex}", function=call) for call in calls],
        )
        called = (auto and bool(calls)) or (required and choice.finish_reason == "stop")
        reasoned = parser.count_reasoning_tokens(choice.token_ids) if self._reasons else 0
        return message, called, reasoned

    def _logprobs(self, result: Generated, choice: Choice) -> ChatCompletionLogProbs | None:
        hidden = result.request is not None and self._online.parser is not None and not result.request.include_reasoning
        if choice.logprobs is None or hidden:  # the tokens of hidden reasoning would show in them
            return None
        steps = zip(choice.token_ids, choice.logprobs, strict=True)
        return ChatCompletionLogProbs(content=[self._entry(one, step, result.params.logprobs) for one, step in steps])

    def _entry(self, token_id: int, step: Any, wanted: int) -> ChatCompletionLogProbsContent:
        if token_id not in step:  # vLLM names the token and leaves the number out
            token = self._online.renderer.get_tokenizer().decode([token_id])
            return ChatCompletionLogProbsContent(token=token, bytes=list(token.encode("utf-8", errors="replace")))
        sampled = _logprob(step[token_id])
        return ChatCompletionLogProbsContent(
            token=sampled.token, logprob=sampled.logprob, bytes=sampled.bytes, top_logprobs=_top(step, wanted)
        )

    def _completion(self, result: Generated, request_id: str) -> bytes:
        choices = [(output, choice) for output in result.outputs for choice in output.choices]
        response = CompletionResponse(
            id=request_id,
            created=int(time.time()),
            model=self._model,
            choices=[
                CompletionResponseChoice(
                    index=index,
                    text=self._text(result, output, choice),
                    logprobs=_completion_logprobs(choice, result.params.logprobs)
                    if choice.logprobs is not None
                    else None,
                    finish_reason=choice.finish_reason,
                    stop_reason=choice.stop_reason,
                )
                for index, (output, choice) in enumerate(choices)
            ],
            usage=_usage(result),
        )
        return _encoded(response)

    def _text(self, result: Generated, output: Output, choice: Choice) -> str:
        if result.params.detokenize:
            return choice.text
        if not choice.token_ids:
            return ""
        asked = SimpleNamespace(
            request_id="", prompt_token_ids=output.prompt_tail, prompt_embeds=None, sampling_params=result.params
        )
        detokenizer = IncrementalDetokenizer.from_new_request(self._online.renderer.get_tokenizer(), asked)
        detokenizer.update(choice.token_ids, choice.finish_reason == "stop")
        text: str = detokenizer.get_next_output_text(finished=True, delta=False)
        return text


def _encoded(response: Any) -> bytes:
    text: str = response.model_dump_json()
    return text.encode()


def _usage(result: Generated, reasoned: int | None = None) -> UsageInfo:
    prompt = sum(output.prompt_tokens for output in result.outputs)
    completion = sum(len(choice.token_ids) for output in result.outputs for choice in output.choices)
    cached = sum(output.cached_tokens for output in result.outputs)
    usage = UsageInfo(
        prompt_tokens=prompt,
        completion_tokens=completion,
        total_tokens=prompt + completion,
        prompt_tokens_details=PromptTokenUsageInfo(cached_tokens=cached) if cached else None,
    )
    if reasoned is None or "completion_tokens_details" not in UsageInfo.model_fields:  # not in vLLM 0.26
        return usage
    details = {"completion_tokens_details": {"reasoning_tokens": reasoned}}
    return UsageInfo.model_validate({**usage.model_dump(), **details})


def _top(step: Any, wanted: int) -> list[ChatCompletionLogProb]:
    """The first `wanted` in the engine's order: the sampled token, then by rank. vLLM's server answers the same."""
    return [_logprob(entry) for entry in list(step.values())[:wanted]]


def _logprob(entry: Any) -> ChatCompletionLogProb:
    token = entry.decoded_token or ""
    return ChatCompletionLogProb(
        token=token, logprob=max(entry.logprob, _FLOOR), bytes=list(token.encode("utf-8", errors="replace"))
    )


def _completion_logprobs(choice: Choice, wanted: int) -> CompletionLogProbs:
    result = CompletionLogProbs()
    offset = 0
    for token_id, step in zip(choice.token_ids, choice.logprobs, strict=True):
        entry = _logprob(step[token_id])
        result.text_offset.append(offset)
        result.tokens.append(entry.token)
        result.token_logprobs.append(entry.logprob)
        result.top_logprobs.append({one.token: one.logprob for one in _top(step, wanted + 1)})
        offset += len(entry.token)
    return result
