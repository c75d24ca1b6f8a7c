"""Which rows ask the same, and how a shared answer is told."""

from __future__ import annotations

import base64
import json
from typing import Any

import pytest
from archive_rows import PNG, archive, chat, media_row

from lsi_ray.archive.duplicates import NO_DIGEST, request_digest, shared_body
from lsi_ray.archive.order import Shape
from lsi_ray.archive.rows import Request, parse_row
from lsi_ray.archive.validate import validate


def request(row: dict[str, Any], members: Any = ()) -> Request:
    return parse_row(json.dumps(row).encode(), row_index=0, line_number=1, members=dict.fromkeys(members))  # type: ignore[arg-type]


def same(one: dict[str, Any], other: dict[str, Any]) -> bool:
    digests = [request_digest(request(row)) for row in (one, other)]
    return NO_DIGEST not in digests and digests[0] == digests[1]


def test_only_the_custom_id_may_differ() -> None:
    assert same(chat("a", "q", temperature=0), chat("b", "q", temperature=0))
    assert same(chat("a", "q", temperature=0, user="x"), chat("b", "q", temperature=0, user="y"))


@pytest.mark.parametrize(
    "fields",
    [
        {"seed": 1},
        {"max_tokens": 5},
        {"logprobs": True},
        {"logprobs": True, "top_logprobs": 2},
        {"stop": ["x"]},
        {"response_format": {"type": "json_object"}},
        {"temperature": 1e-6},
        {"messages": [{"role": "user", "content": "q "}]},
    ],
)
def test_what_reaches_the_engine_may_not(fields: dict[str, Any]) -> None:
    one = chat("a", "q", temperature=0)
    other = json.loads(json.dumps(one))
    other["body"] |= fields
    assert not same(one, other)


@pytest.mark.parametrize("temperature", [None, 0.5, 1e-5])
def test_rows_that_sample_are_never_the_same(temperature: float | None) -> None:
    fields = {} if temperature is None else {"temperature": temperature}
    row = chat("a", "q", seed=1, **fields)
    assert not same(row, row)


def test_embeddings_of_one_text_are_the_same() -> None:
    def row(text: str) -> dict[str, Any]:
        return {"custom_id": text, "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": text}}

    assert same(row("a"), row("a") | {"custom_id": "z"})
    assert not same(row("a"), row("b"))


def test_media_are_the_same_by_name_or_by_inline_bytes() -> None:
    def inline(data: bytes) -> dict[str, Any]:
        row = media_row("data:image/png;base64," + base64.b64encode(data).decode())
        row["body"]["temperature"] = 0
        return row

    assert same(inline(PNG), inline(PNG))
    assert not same(inline(PNG), inline(PNG + b"x"))
    rows = [media_row(f"file:files/{name}", custom_id=str(n)) for n, name in enumerate(["a", "b", "a", "b"])]
    for row in rows:
        row["body"]["temperature"] = 0
    plan = validate(*archive(rows, {"a": PNG, "b": PNG})).plan
    assert plan["row"].tolist() == [0, 2, 1, 3]
    assert plan["same_as"].tolist() == [0, 0, 2, 2]


def test_the_plan_puts_them_side_by_side_and_says_so() -> None:
    texts = ["x" * 5000 + end for end in "abcabca"]
    rows = [chat(str(n), text, temperature=0) for n, text in enumerate(texts)]
    checked = validate(*archive(rows))
    assert checked.plan["row"].tolist() == [0, 3, 6, 1, 4, 2, 5]
    assert checked.plan["same_as"].tolist() == [0, 0, 0, 3, 3, 5, 5]
    off = validate(*archive(rows), shape=Shape(deduplicate=False)).plan
    assert off["same_as"].tolist() == list(range(7))


def test_a_shared_body_differs_by_its_id_and_its_usage_alone() -> None:
    body = b'{"id":"resp-1","choices":[{"logprob":-1.50e-07,"text":"\\u00e9"}],"usage":{"prompt_tokens":3}}'
    told = shared_body(body, "resp-2")
    assert told == body.replace(b"resp-1", b"resp-2").replace(b'":3}', b'":3,"deduplicated":true}')
