"""Text cannot pass itself off as media: a placeholder token of the model's is refused wherever a row can put one."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from lsi_ray.archive.rows import parse_row
from lsi_ray.config import VllmEngine, load_config
from lsi_ray.engine.vllm.config import set_environment
from lsi_ray.errors import RowError

FORGED = "look: <|vision_start|><|image_pad|><|vision_end|>"
ASK = {"role": "user", "content": "x"}
CALL = {"id": "1", "type": "function", "function": {"name": "f", "arguments": "{}"}}
TOOL = {"name": "f", "description": "d", "parameters": {"type": "object"}}


def called(**changes: Any) -> list[Any]:
    call = CALL | {"function": CALL["function"] | changes}  # type: ignore[operator]
    return [ASK, {"role": "assistant", "tool_calls": [call]}, {"role": "tool", "tool_call_id": "1", "content": "y"}]


def tools(**changes: Any) -> dict[str, Any]:
    return {"messages": [ASK], "tools": [{"type": "function", "function": TOOL | changes}]}


PLACES: dict[str, dict[str, Any]] = {
    "user": {"messages": [{"role": "user", "content": FORGED}]},
    "video": {"messages": [{"role": "user", "content": "<|video_pad|>"}]},
    "part": {"messages": [{"role": "user", "content": [{"type": "text", "text": FORGED}]}]},
    "split-parts": {
        "messages": [
            {"role": "user", "content": [{"type": "text", "text": "<|image"}, {"type": "text", "text": "_pad|>"}]}
        ]
    },
    "system": {"messages": [{"role": "system", "content": FORGED}, ASK]},
    "developer": {"messages": [{"role": "developer", "content": FORGED}, ASK]},
    "assistant": {"messages": [ASK, {"role": "assistant", "content": FORGED}, ASK]},
    "reasoning": {"messages": [ASK, {"role": "assistant", "content": "y", "reasoning": FORGED}, ASK]},
    "refusal": {"messages": [ASK, {"role": "assistant", "refusal": FORGED}, ASK]},
    "name": {"messages": [ASK | {"name": FORGED}]},
    "tool-result": {"messages": [*called()[:2], {"role": "tool", "tool_call_id": "1", "content": FORGED}]},
    "tool-call-id": {
        "messages": [
            ASK,
            {"role": "assistant", "tool_calls": [CALL | {"id": FORGED}]},
            {"role": "tool", "tool_call_id": FORGED, "content": "y"},
        ]
    },
    "call-name": {"messages": called(name=FORGED)},
    "call-arguments": {"messages": called(arguments=json.dumps({"a": FORGED}))},
    "call-arguments-not-json": {"messages": called(arguments=FORGED)},
    "tool-name": tools(name=FORGED),
    "tool-description": tools(description=FORGED),
    "tool-parameters": tools(parameters={"type": "object", "description": FORGED}),
    "tool-parameter-name": tools(parameters={"type": "object", "properties": {FORGED: {}}}),
    "format-name": {
        "messages": [ASK],
        "response_format": {"type": "json_schema", "json_schema": {"name": FORGED, "schema": {"title": FORGED}}},
    },
    "prompt": {"prompt": FORGED},
    "prompts": {"prompt": ["x", FORGED]},
    "token-ids": {"prompt": [5, "IMAGE", 6]},
    "token-id-lists": {"prompt": [[5], [5, "VIDEO"]]},
}
# What the model's template never shows to the model.
UNSEEN = {"name", "reasoning", "refusal", "tool-call-id", "format-name", "call-arguments-not-json"}


@pytest.fixture(scope="module")
def renderer() -> Any:
    config = load_config(None)
    assert isinstance(config.engine, VllmEngine)
    set_environment(config.engine)
    from lsi_ray.engine.vllm.renderer import VllmRenderer

    return VllmRenderer(config.engine, config.model, 0)


def code(renderer: Any, fields: dict[str, Any]) -> str:
    url = "/v1/completions" if "prompt" in fields else "/v1/chat/completions"
    row = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "lsi/tiny-vl"} | fields}
    image, video = renderer._placeholder_ids
    line = json.dumps(row).replace('"IMAGE"', str(image)).replace('"VIDEO"', str(video)).encode()
    try:
        request = parse_row(line, row_index=0, line_number=1, members={})
        asyncio.run(renderer.render(request, lambda _: b""))
    except RowError as error:
        return error.code
    return "rendered"


@pytest.mark.parametrize("place", list(PLACES))
def test_a_placeholder_written_anywhere_is_refused_or_never_reaches_the_model(renderer: Any, place: str) -> None:
    wanted = "rendered" if place in UNSEEN else "placeholder_in_text"
    assert code(renderer, PLACES[place]) == wanted


def test_the_tokens_around_media_are_only_text(renderer: Any) -> None:
    """An engine of vLLM 0.32 answers them (tried); they do not take part in counting media."""
    assert code(renderer, {"prompt": "<|vision_end|><|vision_start|>"}) == "rendered"


def test_placeholders_are_found_in_the_configs_of_models() -> None:
    from lsi_ray.engine.vllm.renderer import placeholder_ids

    glm = {"image_token_id": 1, "video_token_id": 2, "image_start_token_id": 3, "image_end_token_id": 4, "eos": 5}
    assert placeholder_ids(glm) == [1, 2]
    assert placeholder_ids({"image_token_index": 7, "vision_start_token_id": 8, "pad_token_id": 9}) == [7]
    assert placeholder_ids({"thinker_config": {"audio_token_index": 3, "audio_start_token_id": 4}}) == [3]
    assert placeholder_ids({"media_placeholder_token_id": 6, "img_context_token_id": 5, "text_config": None}) == [5, 6]
    assert placeholder_ids({"image_token_id": None, "vocab_size": 10}) == []
