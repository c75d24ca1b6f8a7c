"""The allowlist: every request field that reaches the engine, with its type and range, per endpoint.

A field that is not in these tables is refused by name (`unknown_field`), null counts as absent, and fields that mean
nothing here (`user`, `metadata`, `stream: false`, ...) are checked and left out. So what vLLM learns to accept in a new
version (chat templates, priorities, cache salts, plug-in arguments, prompt embeddings) stays closed until it is
opened here; `refused_fields` gives the reasons. Ranges follow OpenAI's API where it has the field, else vLLM's.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from lsi_ray.archive.kinds import (
    Check,
    array,
    flag,
    integer,
    left_out,
    missing,
    number,
    one_of,
    only_false,
    record,
    text,
    tokens,
)
from lsi_ray.archive.messages import messages
from lsi_ray.archive.refused_fields import REFUSED
from lsi_ray.archive.row_codes import bad_row, invalid, shown
from lsi_ray.archive.row_limits import DEFAULT_ROW_LIMITS, RowLimits
from lsi_ray.archive.schemas import bounded_schema

CHAT, COMPLETIONS, EMBEDDINGS = "/v1/chat/completions", "/v1/completions", "/v1/embeddings"

_INT31 = 2**31 - 1
_INT63 = 2**63 - 1
_MAX_PIXELS = 16384 * 28 * 28  # 12.8 million: the highest pixel budget of the Qwen-VL processors
_MAX_PROMPTS = 2048  # OpenAI's bound for the inputs of one embeddings request
GREEDY_BELOW = 1e-5  # vLLM takes lower temperatures as greedy

_token_ids = array(integer(0, _INT31), 1_000_000, min_items=1)


def _stream(value: Any, param: str, _limits: RowLimits) -> None:
    if value is not False:
        raise bad_row("stream_not_supported", f"{param} must be false or absent in a batch, got {shown(value)}", param)


def _stop(value: Any, param: str, limits: RowLimits) -> list[str]:
    words = [value] if type(value) is str else value
    return array(text(1024, min_chars=1), 4)(words, param, limits)  # type: ignore[no-any-return]


def _logit_bias(value: Any, param: str, limits: RowLimits) -> dict[str, float]:
    if type(value) is not dict or len(value) > 300:
        raise invalid(param, "an object with at most 300 token ids", value)
    for token in value:
        if not (token.isascii() and token.isdigit() and len(token) < 10):
            raise invalid(param, "an object whose keys are token ids", token)
    return {token: number(-100, 100)(bias, f"{param}.{token}", limits) for token, bias in value.items()}


def _prompts(value: Any, param: str, limits: RowLimits) -> Any:
    """One prompt or several, each a text or token ids."""
    if type(value) is str:
        return value
    if type(value) is list and value and type(value[0]) is int:
        return _token_ids(value, param, limits)
    if type(value) is not list or not 1 <= len(value) <= _MAX_PROMPTS:
        raise invalid(param, f"a string, token ids, or an array of 1 to {_MAX_PROMPTS} of them", value)
    one = text() if type(value[0]) is str else _token_ids
    return array(one, _MAX_PROMPTS)(value, param, limits)


_JSON_SCHEMA = record(
    {
        "name": text(128, min_chars=1),
        "description": text(4096),
        "schema": bounded_schema,
        "strict": flag,
    },
    required=frozenset({"name", "schema"}),
)
_response_format = record(
    {"type": one_of("text", "json_object", "json_schema"), "json_schema": _JSON_SCHEMA},
    required=frozenset({"type"}),
)

_FUNCTION = record(
    {
        "name": text(128, min_chars=1),
        "description": text(65_536),
        "parameters": bounded_schema,
        "strict": flag,
    },
    required=frozenset({"name"}),
)
_tools = array(
    record({"type": one_of("function"), "function": _FUNCTION}, required=frozenset({"type", "function"})),
    128,
    min_items=1,
)
_NAMED_TOOL = record(
    {
        "type": one_of("function"),
        "function": record({"name": text(128, min_chars=1)}, required=frozenset({"name"})),
    },
    required=frozenset({"type", "function"}),
)


def _tool_choice(value: Any, param: str, limits: RowLimits) -> Any:
    rule = _NAMED_TOOL if type(value) is dict else one_of("none", "auto", "required")
    return rule(value, param, limits)


def _metadata(value: Any, param: str, limits: RowLimits) -> None:
    if type(value) is not dict or len(value) > 16:
        raise invalid(param, "an object with at most 16 labels", value)
    for name, label in value.items():
        text(512)(label, f"{param}.{shown(name)}", limits)


_ANY_ENDPOINT: dict[str, Check] = {
    "model": text(256, min_chars=1),
    "user": left_out(text(4096)),
}

_SAMPLING: dict[str, Check] = {
    "max_tokens": tokens(1),
    "min_tokens": tokens(0),
    "temperature": number(0, 2),
    "top_p": number(0, 1, above_low=True),
    "top_k": integer(-1, 1_000_000),  # 0 and -1: off
    "min_p": number(0, 1),
    "n": integer(1, 8),
    "seed": integer(-_INT63 - 1, _INT63),
    "stop": _stop,
    "stop_token_ids": array(integer(0, _INT31), 256),
    "include_stop_str_in_output": flag,
    "ignore_eos": flag,
    "skip_special_tokens": flag,
    "spaces_between_special_tokens": flag,
    "frequency_penalty": number(-2, 2),
    "presence_penalty": number(-2, 2),
    "repetition_penalty": number(0, 10, above_low=True),
    "logit_bias": _logit_bias,
    "response_format": _response_format,
    "stream": left_out(_stream),
}

_CHAT_ONLY: dict[str, Check] = {
    "messages": messages,
    "max_completion_tokens": tokens(1),
    "logprobs": flag,
    "top_logprobs": integer(0, 20),
    "tools": _tools,
    "tool_choice": _tool_choice,
    "parallel_tool_calls": flag,
    "reasoning_effort": one_of("none", "minimal", "low", "medium", "high", "xhigh", "max"),
    "include_reasoning": flag,
    "chat_template_kwargs": record({"enable_thinking": flag, "thinking": flag}),
    "media_io_kwargs": record(
        {"video": record({"num_frames": integer(1, 768), "fps": number(0, 30, above_low=True)})},
    ),
    "mm_processor_kwargs": record(
        {
            "min_pixels": integer(1, _MAX_PIXELS),
            "max_pixels": integer(1, _MAX_PIXELS),
            "fps": number(0, 30, above_low=True),
        }
    ),
    "metadata": left_out(_metadata),
    "store": only_false("nothing is kept after the batch"),
}

_COMPLETIONS_ONLY: dict[str, Check] = {
    "prompt": _prompts,
    "logprobs": integer(0, 20),
    "echo": only_false("the prompt is not repeated in the answer"),
}

_EMBEDDINGS_ONLY: dict[str, Check] = {
    "input": _prompts,
    "dimensions": integer(1, 65_536),
    "encoding_format": one_of("float", "base64"),
    "truncate_prompt_tokens": integer(-1, 1_000_000),  # -1: to the length of the model
}

ENDPOINTS: dict[str, dict[str, Check]] = {
    CHAT: _ANY_ENDPOINT | _SAMPLING | _CHAT_ONLY,
    COMPLETIONS: _ANY_ENDPOINT | _SAMPLING | _COMPLETIONS_ONLY,
    EMBEDDINGS: _ANY_ENDPOINT | _EMBEDDINGS_ONLY,
}

_CHECKS: dict[str, Check] = {
    CHAT: record(ENDPOINTS[CHAT], frozenset({"model", "messages"}), REFUSED),
    COMPLETIONS: record(ENDPOINTS[COMPLETIONS], frozenset({"model", "prompt"}), REFUSED),
    EMBEDDINGS: record(ENDPOINTS[EMBEDDINGS], frozenset({"model", "input"}), REFUSED),
}


def allowed_fields(url: str) -> frozenset[str]:
    """The names that the body of a request to `url` may use. Raises KeyError for an endpoint that does not exist."""
    return frozenset(ENDPOINTS[url])


def check_body(url: str, body: Any, limits: RowLimits = DEFAULT_ROW_LIMITS) -> dict[str, Any]:
    """A checked copy of `body`, ready for the engine. Raises RowError that names the field, the value and the range."""
    checked: dict[str, Any] = _CHECKS[url](body, "body", limits)
    for rule in _TOGETHER:
        rule(checked)
    return checked


def _check_logprobs(body: dict[str, Any]) -> None:
    if body.get("top_logprobs") and not body.get("logprobs"):
        raise invalid("body.top_logprobs", "0 or absent without logprobs: true", body["top_logprobs"])


def _check_greedy(body: dict[str, Any]) -> None:
    if body.get("n", 1) > 1 and body.get("temperature", 1) < GREEDY_BELOW:
        raise invalid("body.n", "1 at temperature 0, where all answers are the same", body["n"])


def _check_lengths(body: dict[str, Any]) -> None:
    longest = body.get("max_completion_tokens", body.get("max_tokens"))
    if longest is not None and body.get("min_tokens", 0) > longest:
        raise invalid("body.min_tokens", f"at most max_tokens ({longest})", body["min_tokens"])


def _check_tool_choice(body: dict[str, Any]) -> None:
    choice, names = body.get("tool_choice", "none"), [tool["function"]["name"] for tool in body.get("tools", [])]
    if choice != "none" and not names:
        raise invalid("body.tool_choice", "none or absent without tools", choice)
    if type(choice) is dict and choice["function"]["name"] not in names:
        raise invalid("body.tool_choice.function.name", "the name of one of the tools", choice["function"]["name"])


def _check_response_format(body: dict[str, Any]) -> None:
    wanted = body.get("response_format")
    if wanted and wanted["type"] == "json_schema" and "json_schema" not in wanted:
        raise missing("body.response_format.json_schema")


def _check_pixels(body: dict[str, Any]) -> None:
    pixels = body.get("mm_processor_kwargs", {})
    if pixels.get("min_pixels", 0) > pixels.get("max_pixels", _MAX_PIXELS):
        raise invalid(
            "body.mm_processor_kwargs.min_pixels", f"at most max_pixels ({pixels['max_pixels']})", pixels["min_pixels"]
        )


_TOGETHER: tuple[Callable[[dict[str, Any]], None], ...] = (
    _check_logprobs,
    _check_greedy,
    _check_lengths,
    _check_tool_choice,
    _check_response_format,
    _check_pixels,
)
