from __future__ import annotations

import copy
import re
from typing import Any

import pytest
from archive_rows import chat

from lsi_ray.archive.fields import CHAT, COMPLETIONS, EMBEDDINGS, allowed_fields, check_body
from lsi_ray.archive.refused_fields import REFUSED
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.errors import RowError

TOOL = {
    "type": "function",
    "function": {"name": "weather", "description": "d", "parameters": {"type": "object"}, "strict": True},
}
CALL = {"id": "c1", "type": "function", "function": {"name": "weather", "arguments": '{"city": "Bonn"}'}}
SCHEMA = {"type": "object", "properties": {"a": {"$ref": "#/$defs/a"}}, "$defs": {"a": {"type": "string"}}}


def body(**fields: Any) -> dict[str, Any]:
    return chat(**fields)["body"]  # type: ignore[no-any-return]


def check(fields: dict[str, Any], **limits: int) -> dict[str, Any]:
    return check_body(CHAT, body(**fields), RowLimits(**limits))


def schema(value: Any, **more: Any) -> dict[str, Any]:
    return {"response_format": {"type": "json_schema", "json_schema": {"name": "s", "schema": value} | more}}


GOOD: list[dict[str, Any]] = [
    {"max_tokens": 1}, {"max_tokens": 131072}, {"max_completion_tokens": 5, "min_tokens": 5},
    {"temperature": 0}, {"temperature": 2}, {"temperature": 0.7, "n": 8}, {"n": 1, "temperature": 0},
    {"top_p": 1}, {"top_p": 0.0001}, {"top_k": -1}, {"top_k": 0}, {"top_k": 50}, {"min_p": 0}, {"min_p": 1.0},
    {"seed": -(2**63)}, {"seed": 2**63 - 1}, {"stop": ["a", "b", "c", "d"]}, {"stop": []},
    {"frequency_penalty": -2, "presence_penalty": 2.0, "repetition_penalty": 1.05},
    {"logit_bias": {str(n): -100 for n in range(300)}}, {"logprobs": True, "top_logprobs": 20}, {"top_logprobs": 0},
    {"tools": [TOOL]}, {"tools": [TOOL] * 128, "tool_choice": "required", "parallel_tool_calls": False},
    {"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "weather"}}}, {"tool_choice": "none"},
    {"response_format": {"type": "text"}}, {"response_format": {"type": "json_object"}},
    schema(SCHEMA), schema({"enum": list(range(5000))}), schema({"pattern": "a" * 512}, strict=True, description="d"),
    {"reasoning_effort": "low"}, {"include_reasoning": False}, {"chat_template_kwargs": {"enable_thinking": False}},
    {"ignore_eos": True, "stop_token_ids": [0, 5], "skip_special_tokens": False, "include_stop_str_in_output": True},
    {"media_io_kwargs": {"video": {"num_frames": 1}}}, {"media_io_kwargs": {"video": {"num_frames": 768, "fps": 0.5}}},
    {"mm_processor_kwargs": {"min_pixels": 3136, "max_pixels": 12_845_056, "fps": 2}},
]  # fmt: skip

BAD: list[tuple[dict[str, Any], str, str]] = [
    ({"max_tokens": 0}, "max_tokens", "an integer from 1 to 131072, got 0"),
    ({"max_tokens": 131073}, "max_tokens", "got 131073"),
    ({"max_tokens": "100"}, "max_tokens", 'got "100"'),
    ({"max_tokens": True}, "max_tokens", "got true"),
    ({"max_tokens": 1.5}, "max_tokens", "got 1.5"),
    ({"max_tokens": 4, "min_tokens": 5}, "min_tokens", r"at most max_tokens \(4\), got 5"),
    ({"temperature": -0.1}, "temperature", "a number from 0 to 2, got -0.1"),
    ({"temperature": False}, "temperature", "got false"),
    ({"top_p": 0}, "top_p", "a number above 0 and at most 1, got 0"),
    ({"top_p": 1.01}, "top_p", "got 1.01"),
    ({"top_k": -2}, "top_k", "got -2"),
    ({"n": 9}, "n", "from 1 to 8, got 9"),
    ({"n": 2, "temperature": 0}, "n", "1 at temperature 0"),
    ({"stop": ["a"] * 5}, "stop", "0 to 4 items, got an array of 5"),
    ({"stop": ""}, r"stop\[0\]", "1 to 1024 characters"),
    ({"logit_bias": {str(n): 1 for n in range(301)}}, "logit_bias", "at most 300"),
    ({"logit_bias": {"-5": 1}}, "logit_bias", "keys are token ids"),
    ({"logit_bias": {"²": 1}}, "logit_bias", "keys are token ids"),
    ({"logit_bias": {"5": 101}}, "logit_bias.5", "got 101"),
    ({"top_logprobs": 5}, "top_logprobs", "without logprobs: true"),
    ({"logprobs": 1}, "logprobs", "true or false"),
    ({"repetition_penalty": 0}, "repetition_penalty", "above 0"),
    ({"tools": []}, "tools", "1 to 128 items"),
    ({"tools": [TOOL | {"type": "web_search"}]}, r"tools\[0\].type", "web_search"),
    ({"tool_choice": "auto"}, "tool_choice", "none or absent without tools"),
    ({"tools": [TOOL], "tool_choice": "any"}, "tool_choice", 'got "any"'),
    ({"tools": [TOOL], "tool_choice": {"type": "function", "function": {"name": "x"}}}, "function.name", 'got "x"'),
    ({"response_format": {"type": "structural_tag"}}, "response_format.type", "structural_tag"),
    ({"reasoning_effort": "ultra"}, "reasoning_effort", '"low", "medium"'),
    ({"chat_template_kwargs": {"enable_thinking": "yes"}}, "enable_thinking", "true or false"),
    ({"media_io_kwargs": {"video": {"num_frames": -1}}}, "video.num_frames", "from 1 to 768"),
    ({"mm_processor_kwargs": {"max_pixels": 10**9}}, "max_pixels", "12845056"),
    ({"mm_processor_kwargs": {"min_pixels": 9, "max_pixels": 8}}, "min_pixels", r"max_pixels \(8\)"),
    ({"store": True}, "store", "nothing is kept"),
    ({"metadata": {"a": 1}}, "metadata", "a string"),
]

UNKNOWN = [
    {"chat_template": "{{ x }}"}, {"priority": 1}, {"cache_salt": "x"}, {"structured_outputs": {"regex": "a"}},
    {"vllm_xargs": {}}, {"bad_words": ["x"]}, {"guided_json": {}}, {"prompt_embeds": "x"}, {"functions": []},
    {"kv_transfer_params": None}, {"extra_body": {}}, {"Temperature": 1}, {"": 1},
    {"chat_template_kwargs": {"chat_template": "x"}}, {"media_io_kwargs": {"image": {}}},
    {"media_io_kwargs": {"video": {"backend": "x"}}}, {"mm_processor_kwargs": {"size": {}}},
    {"tools": [TOOL | {"defer_loading": True}]}, schema(SCHEMA, extra=1),
]  # fmt: skip


@pytest.mark.parametrize("fields", GOOD, ids=range(len(GOOD)))
def test_fields_in_range_pass_unchanged(fields: dict[str, Any]) -> None:
    before = copy.deepcopy(fields)
    assert check(fields) == body() | fields
    assert fields == before


@pytest.mark.parametrize(("fields", "param", "message"), BAD, ids=range(len(BAD)))
def test_fields_out_of_range_are_named_with_value_and_range(fields: dict[str, Any], param: str, message: str) -> None:
    with pytest.raises(RowError, match=f"{param}.*{message}") as caught:
        check(fields)
    assert caught.value.code == "invalid_value"
    assert re.search(param, str(caught.value.param))


@pytest.mark.parametrize("fields", UNKNOWN, ids=range(len(UNKNOWN)))
def test_unknown_fields_are_refused_by_name_also_when_null_or_nested(fields: dict[str, Any]) -> None:
    with pytest.raises(RowError, match="is not a field that is accepted here") as caught:
        check(fields)
    assert caught.value.code == "unknown_field"
    assert str(caught.value.param).startswith("body." + next(iter(fields)))


def test_null_counts_as_absent_and_idle_fields_are_left_out() -> None:
    idle = {"user": "u", "metadata": {"a": "b"}, "store": False, "stream": False}
    nulls = dict.fromkeys(sorted(allowed_fields(CHAT) - {"messages", "model"} - set(idle)))
    assert check(idle | nulls) == body()
    assert check_body(COMPLETIONS, {"model": "m", "prompt": "x", "echo": False}) == {"model": "m", "prompt": "x"}


def test_one_stop_string_becomes_a_list_and_whole_floats_integers() -> None:
    checked = check({"stop": "END", "max_tokens": 64.0})
    assert (checked["stop"], checked["max_tokens"], type(checked["max_tokens"])) == (["END"], 64, int)


def test_the_deployment_bounds_max_tokens() -> None:
    assert check({"max_tokens": 8}, max_tokens=8)["max_tokens"] == 8
    for name in ("max_tokens", "max_completion_tokens", "min_tokens"):
        with pytest.raises(RowError, match="to 8, got 9"):
            check({name: 9}, max_tokens=8)


@pytest.mark.parametrize(("url", "field"), [(COMPLETIONS, "prompt"), (EMBEDDINGS, "input")])
def test_prompts(url: str, field: str) -> None:
    for value in ("x", ["x", "y"], [1, 2], [[1], [2, 3]]):
        assert check_body(url, {"model": "m", field: value})[field] == value
    for value in ([], 5, [[]], ["x", 5], [1, "x"], [1, -1], [[1], ["x"]], ["x"] * 2049, {"a": 1}, [None]):
        with pytest.raises(RowError) as caught:
            check_body(url, {"model": "m", field: value})
        assert caught.value.code == "invalid_value"
        assert str(caught.value.param).startswith(f"body.{field}")


@pytest.mark.parametrize(("url", "field"), [
    (EMBEDDINGS, "temperature"), (EMBEDDINGS, "messages"), (COMPLETIONS, "tools"), (CHAT, "echo"), (CHAT, "input"),
])  # fmt: skip
def test_fields_of_other_endpoints_are_unknown(url: str, field: str) -> None:
    base = {CHAT: body(), COMPLETIONS: {"model": "m", "prompt": "x"}, EMBEDDINGS: {"model": "m", "input": "x"}}[url]
    check_body(url, base)
    with pytest.raises(RowError) as caught:
        check_body(url, base | {field: False})
    assert (caught.value.code, caught.value.param) == ("unknown_field", f"body.{field}")


def deep(levels: int) -> dict[str, Any]:
    value: dict[str, Any] = {"type": "string"}
    for _ in range(levels - 1):
        value = {"items": value}
    return value


@pytest.mark.parametrize(("value", "message"), [
    (deep(33), "nested deeper than 32"),
    ({"prefixItems": [[[[[]]]]] * 500}, "more than 2000 objects and arrays"),
    ({"description": "x" * 65_536}, "65554 bytes; at most 65536"),
    ({"enum": [0] * 5001}, "enum of 5001"),
    ({"items": {"pattern": "(" * 513}}, "pattern of 513"),
    ({"patternProperties": {"a" * 513: {}}}, "pattern of 513"),
    ({"items": [{"$ref": "https://host/s.json?key=canary"}]}, '"https://host/s.json"; only references within'),
    ({"$dynamicRef": "other.json#a"}, "only references within"),
])  # fmt: skip
@pytest.mark.parametrize("place", ["response_format", "tools"])
def test_wild_schemas_are_rejected(value: dict[str, Any], message: str, place: str) -> None:
    function = {"name": "f", "parameters": value}
    fields = schema(value) if place == "response_format" else {"tools": [{"type": "function", "function": function}]}
    with pytest.raises(RowError, match=message) as caught:
        check(fields)
    assert caught.value.code == "schema_rejected"
    assert "canary" not in caught.value.message


def test_schemas_at_the_bounds_pass() -> None:
    for value in (deep(32), {"prefixItems": [{}] * 1998}, {"properties": {"enum": {}, "pattern": {}, "$ref": {}}}):
        check(schema(value))


CONVERSATION = [
    {"role": "developer", "content": [{"type": "text", "text": "Be brief."}]},
    {"role": "user", "content": "Weather?", "name": "ada"},
    {"role": "assistant", "content": None, "tool_calls": [CALL]},
    {"role": "tool", "content": "rain", "tool_call_id": "c1"},
    {"role": "assistant", "content": "It rains.", "reasoning": "hm"},
    {"role": "user", "content": ""},
]


def test_a_conversation_with_tools_passes() -> None:
    assert check({"messages": CONVERSATION})["messages"] == CONVERSATION


def test_what_the_sdk_writes_for_an_answer_passes_and_its_idle_fields_go() -> None:
    answer = {"role": "assistant", "content": "Hi", "refusal": None, "annotations": [], "audio": None}
    answer |= {"function_call": None, "tool_calls": None}
    user = {"role": "user", "content": "x"}
    assert check({"messages": [user, answer, user]})["messages"] == [user, {"role": "assistant", "content": "Hi"}, user]


@pytest.mark.parametrize(("message", "param"), [
    ({"role": "user", "content": "x", "weight": 1}, ".weight"),
    ({"role": "user", "content": "x", "tool_calls": []}, ".tool_calls"),
    ({"role": "user", "content": 5}, ".content"),
    ({"role": "user", "content": ["x"]}, ".content[0]"),
    ({"role": "user", "content": [{"type": "text", "text": None}]}, ".content[0].text"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": "file:files/a"}]}, ".content[0].image_url"),
    ({"role": "user", "content": [{"type": "image_url", "image_url": {"url": 1}}]}, ".content[0].image_url.url"),
    ({"role": "user", "content": [{"type": "image_url", "video_url": {"url": "x"}}]}, ".content[0].video_url"),
    ({"role": "assistant", "content": None}, ".content"),
    ({"role": "assistant", "content": "x", "audio": {"id": "a"}}, ".audio"),
    ({"role": "assistant", "tool_calls": [{"type": "custom"}]}, ".tool_calls[0].type"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": {}}}]},
     ".tool_calls[0].function.arguments"),
    ({"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": "[" * 5000 + "]" * 5000}}]},
     ".tool_calls[0].function.arguments"),
    ({"role": "tool", "content": "x"}, ".tool_call_id"),
    ("hello", ""),
])  # fmt: skip
def test_messages_out_of_form(message: Any, param: str) -> None:
    with pytest.raises(RowError) as caught:
        check({"messages": [message]})
    assert caught.value.param == f"body.messages[0]{param}"
    assert param in caught.value.message


@pytest.mark.parametrize("url", [CHAT, COMPLETIONS, EMBEDDINGS])
def test_fields_refused_for_a_reason_say_it(url: str) -> None:
    """That these are all of vLLM's, tests/integration/test_vllm_fields.py looks up in the installed one."""
    refused = set(REFUSED) - allowed_fields(url)
    assert len(refused) > 50
    for name in refused:
        with pytest.raises(
            RowError, match=f"body.{name} is not a field that is accepted here: {REFUSED[name]}"
        ) as caught:
            check_body(url, {"model": "m", name: 1})
        assert (caught.value.code, caught.value.param) == ("unknown_field", f"body.{name}")


def test_no_field_is_refused_for_a_reason_and_allowed_everywhere() -> None:
    everywhere = allowed_fields(CHAT) & allowed_fields(COMPLETIONS) & allowed_fields(EMBEDDINGS)
    assert not everywhere & set(REFUSED)
