"""The request models of the installed vLLM, field by field: what a new version learns to accept is noticed here.

Every field is in the allowlist (archive/fields.py) or refused for a reason (archive/refused_fields.py), every kind of
message part and of response format is known, and a row that uses anything else gets an error that names it.
"""

from __future__ import annotations

import json
from typing import Any, get_args

import pytest

from lsi_ray.archive.fields import CHAT, COMPLETIONS, EMBEDDINGS, allowed_fields
from lsi_ray.archive.refused_fields import REFUSED
from lsi_ray.archive.rows import parse_row
from lsi_ray.errors import RowError

BODIES: dict[str, dict[str, Any]] = {
    CHAT: {"model": "m", "messages": [{"role": "user", "content": "x"}]},
    COMPLETIONS: {"model": "m", "prompt": "x"},
    EMBEDDINGS: {"model": "m", "input": "x"},
}


def models() -> dict[str, list[Any]]:
    from vllm.entrypoints.openai.chat_completion.protocol import ChatCompletionRequest
    from vllm.entrypoints.openai.completion.protocol import CompletionRequest
    from vllm.entrypoints.pooling.embed import protocol as embed

    union = embed.EmbeddingRequest
    while not hasattr(union, "model_fields") and not all(hasattr(one, "model_fields") for one in get_args(union)):
        union = get_args(union)[0]  # Annotated[A | B, ...]
    return {CHAT: [ChatCompletionRequest], COMPLETIONS: [CompletionRequest], EMBEDDINGS: list(get_args(union))}


def names(url: str) -> set[str]:
    """Of all the fields that a request to `url` may have in vLLM, their aliases too."""
    found: set[str] = set()
    for model in models()[url]:
        for name, field in model.model_fields.items():
            found |= {name} | {alias for alias in (field.alias, field.validation_alias) if isinstance(alias, str)}
    return found


def refusal(url: str, **fields: Any) -> RowError:
    row = {"custom_id": "a", "method": "POST", "url": url, "body": BODIES[url] | fields}
    with pytest.raises(RowError) as caught:
        parse_row(json.dumps(row).encode(), row_index=0, line_number=1, members={})
    return caught.value


@pytest.mark.parametrize("url", list(BODIES))
def test_every_field_of_vllm_is_allowed_or_refused_for_a_reason(url: str) -> None:
    found = names(url)
    assert len(found) > 15
    unclassified = found - allowed_fields(url) - set(REFUSED)
    assert not unclassified, f"allow them in archive/fields.py, or refuse them in archive/refused_fields.py ({url})"
    assert allowed_fields(url) - found <= {"metadata", "store"}, "of OpenAI's API, and left out"


@pytest.mark.parametrize("url", list(BODIES))
@pytest.mark.parametrize("value", [1, "x", None, {"a": 1}])
def test_every_field_that_is_not_allowed_is_an_error_that_names_it(url: str, value: Any) -> None:
    for name in (names(url) | set(REFUSED)) - allowed_fields(url):
        error = refusal(url, **{name: value})
        assert (error.code, error.param) == ("unknown_field", f"body.{name}")
        assert name in error.message
        assert REFUSED[name] in error.message


@pytest.mark.parametrize("url", list(BODIES))
def test_every_field_that_is_allowed_has_a_type(url: str) -> None:
    for name in allowed_fields(url):
        error = refusal(url, **{name: {"no": ["such", {"value": 1}]}})
        assert error.code in ("invalid_value", "unknown_field", "missing_required_parameter", "stream_not_supported")
        assert str(error.param).startswith(f"body.{name}")


def test_every_kind_of_message_part_is_known() -> None:
    from vllm.renderers import chat_utils

    ours = {"text", "image_url", "video_url"}
    refused = {
        "audio_embeds", "audio_url", "image_embeds", "image_pil", "input_audio", "input_image", "input_text",
        "output_text", "prompt_embeds", "refusal", "thinking", "tool_reference", "video_embeds",
    }  # fmt: skip
    kinds = set(chat_utils.MM_PARSER_MAP)
    assert kinds - ours - refused == set(), "a kind of part that nobody has thought about"
    for kind in kinds - ours:
        part = {"type": kind, kind: {"url": "http://127.0.0.1:1/x"}}
        error = refusal(CHAT, messages=[{"role": "user", "content": [part]}])
        assert (error.code, error.param) == ("unsupported_content", "body.messages[0].content[0].type")
    # vLLM knows a part without a type by its other keys.
    for key in kinds:
        error = refusal(CHAT, messages=[{"role": "user", "content": [{key: "http://127.0.0.1:1/x"}]}])
        assert error.code == "missing_required_parameter"


def test_every_kind_of_response_format_is_known() -> None:
    field = models()[CHAT][0].model_fields["response_format"]
    kinds = {kind for model in get_args(field.annotation) for kind in _types(model)}
    assert kinds == {"text", "json_object", "json_schema", "structural_tag"}
    error = refusal(CHAT, response_format={"type": "structural_tag", "format": {}})
    assert str(error.param).startswith("body.response_format")


def _types(model: Any) -> set[str]:
    fields = getattr(model, "model_fields", {})
    return set(get_args(fields["type"].annotation)) if "type" in fields else set()
