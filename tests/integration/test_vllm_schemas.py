"""Schemas from strangers, through our bounds and vLLM's own grammar compiler in a child with limits, before any engine.

With the tiny model's vocabulary of 1,000 tokens; one start of the compiler (2 to 4 s) for all of them.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import psutil
import pytest

from lsi_ray.archive.rows import parse_row
from lsi_ray.config import VllmEngine, load_config
from lsi_ray.engine.vllm.config import renderer_config, set_environment
from lsi_ray.engine.vllm.schema_budget import SchemaBudget
from lsi_ray.errors import RowError

GOOD = {"type": "object", "properties": {"a": {"type": "boolean"}, "b": {"type": "string"}}, "required": ["a"]}


def nested(depth: int, inner: Any, wrap: Any) -> Any:
    for _ in range(depth):
        inner = wrap(inner)
    return inner


def objects(depth: int) -> Any:
    return nested(depth, {"type": "string"}, lambda inner: {"type": "object", "properties": {"p": inner}})


def arrays(depth: int, **bounds: int) -> Any:
    return nested(depth, {"type": "integer"}, lambda inner: {"type": "array", "items": inner, **bounds})


def pattern(text: str) -> Any:
    return {"type": "string", "pattern": text}


REJECTED = {
    "objects-20": objects(20),
    "objects-60": objects(60),
    "objects-120": objects(120),
    "objects-250": objects(250),
    "arrays-3000": '{"items":' * 3000 + "{}" + "}" * 3000,
    "enum-100000": {"enum": [f"entry {number}" for number in range(100_000)]},
    "properties-20000": {"type": "object", "properties": {f"p{number}": {} for number in range(20_000)}},
    "parentheses-30000": pattern("(" * 30_000),
    "parentheses-500": pattern("(" * 500),
    "pattern-600": pattern("a" * 600),
    "ranges": pattern("[\\u4e00-\\u9fff]{1,1000}" * 20),
    "repeated-any": pattern("(.{1,1000}){1,1000}"),
    "repeated-words": pattern("([a-z]{1,30}( [a-z]{1,30}){0,30}){1,50}"),
    "itself": {"$ref": "#"},
    "ring": {"$ref": "#/$defs/a", "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"$ref": "#/$defs/a"}}},
    "remote-reference": {"$ref": "http://127.0.0.1:1/schema.json"},
    "file-reference": {"$ref": "file:///etc/passwd"},
    "lost-reference": {"$ref": "#/$defs/none"},
    "no-such-type": {"type": "nonsense"},
    "multiple-of": {"type": "integer", "multipleOf": 3},
    "two-all-of": {"allOf": [{"type": "string"}, {"enum": ["a"]}]},
}
COMPILED = {
    "objects-15": objects(15),
    "arrays-30": arrays(30),
    "bounded-arrays": arrays(10, maxItems=1000),
    "array-10^9": arrays(1, maxItems=10**9),
    "repetition": pattern("(a{1,1000}){1,1000}"),
    "nested-repetition": pattern("((a{1,100}){1,100}){1,100}"),
    "parentheses-250": pattern("(" * 250 + ")" * 250),
    "backtracking": pattern("(a+)+b"),
    "enum-4000": {"enum": [f"entry {number}" for number in range(4000)]},
    "properties-1000": {"type": "object", "properties": {f"p{number}": {"type": "string"} for number in range(1000)}},
    "recursive": {"$ref": "#/$defs/a", "$defs": {"a": {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}}}},
    "max-length": {"type": "string", "minLength": 3, "maxLength": 100_000},
}


@pytest.fixture(scope="module")
def engine() -> VllmEngine:
    engine = load_config(None).engine
    assert isinstance(engine, VllmEngine)
    set_environment(engine)
    return engine.model_copy(update={"schema_cpu_s": 1})


@pytest.fixture(scope="module")
def renderer(engine: VllmEngine) -> Iterator[Any]:
    from lsi_ray.engine.vllm.renderer import VllmRenderer

    renderer = VllmRenderer(engine, load_config(None).model, 0)
    yield renderer
    renderer._grammars.close()


def row(schema: Any) -> bytes:
    """`schema` may be text: some are too deep for Python to write."""
    asked = {"type": "json_schema", "json_schema": {"name": "s", "schema": "SCHEMA"}}
    body = {"model": "lsi/tiny-vl", "messages": [{"role": "user", "content": "x"}], "response_format": asked}
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body})
    return line.replace('"SCHEMA"', schema if isinstance(schema, str) else json.dumps(schema)).encode()


def render(renderer: Any, schema: Any, caller: str = "") -> str:
    """The code of the row's error, or "rendered"."""
    try:
        request = parse_row(row(schema), row_index=0, line_number=1, members={})
        asyncio.run(renderer.render(request, lambda _: b"", caller))
    except RowError as error:
        return error.code if len(error.message) < 1200 else "a message of any length"
    return "rendered"


def test_hostile_schemas_are_rejected_or_compiled_in_five_seconds_and_their_neighbours_go_on(renderer: Any) -> None:
    assert render(renderer, GOOD) == "rendered"
    found, slow = {}, {}
    for name, schema in (REJECTED | COMPILED).items():
        began = time.monotonic()
        found[name] = render(renderer, schema, name)
        took = time.monotonic() - began
        assert render(renderer, {"title": name, **GOOD}) == "rendered", f"after {name}"
        if took > 5:
            slow[name] = took
    # Deeper than 64 levels is no row at all.
    codes = dict.fromkeys(REJECTED, "schema_rejected") | dict.fromkeys(COMPILED, "rendered")
    codes |= dict.fromkeys(("objects-60", "objects-120", "objects-250", "arrays-3000"), "invalid_json_line")
    assert found == codes
    assert slow == {}


def test_a_schema_seen_before_is_not_compiled_again(renderer: Any) -> None:
    known, slow = {"type": "object", "title": "known"}, REJECTED["ranges"]
    first = [render(renderer, known), render(renderer, slow)]
    before = renderer._grammars.compiled
    began = time.monotonic()
    assert [render(renderer, known), render(renderer, slow)] == first
    assert time.monotonic() - began < 0.5
    assert renderer._grammars.compiled == before


def test_a_caller_of_many_slow_schemas_is_refused_soon_and_nobody_else_is(renderer: Any) -> None:
    def slow(number: int) -> Any:  # at least 0.2 s of CPU each, then refused
        return {"title": f"slow {number}", **REJECTED["ranges"]}

    cheap = {"title": "cheap", **GOOD}
    assert render(renderer, cheap, "many") == "rendered"
    renderer._grammars._budget = SchemaBudget(1.5, lambda: 0.0)
    before = renderer._grammars.compiled
    assert {render(renderer, slow(number), "many") for number in range(60)} == {"schema_rejected"}
    assert renderer._grammars.compiled - before < 30  # 4.5 s of at least 0.2
    renderer._grammars._budget.spend("many", 100)
    request = parse_row(row({"title": "new", **GOOD}), row_index=0, line_number=1, members={})
    with pytest.raises(RowError, match="one too many"):
        asyncio.run(renderer.render(request, lambda _: b"", "many"))
    assert render(renderer, cheap, "many") == "rendered"
    assert render(renderer, {"title": "other", **GOOD}, "another") == "rendered"


def test_what_every_row_takes_to_convert_is_counted(renderer: Any) -> None:
    schema = {"title": "converted often", **GOOD}
    assert render(renderer, schema, "often") == "rendered"
    verdict = next(reversed(renderer._grammars._known.values()))
    assert verdict.convert_s <= verdict.cpu_s < 1
    renderer._grammars._known[next(reversed(renderer._grammars._known))] = replace(verdict, convert_s=0.19)
    renderer._grammars._budget = SchemaBudget(1.5, lambda: 0.0)
    codes = [render(renderer, schema, "often") for _ in range(30)]
    assert codes[:8] == ["rendered"] * 8
    assert "schema_rejected" in codes


def test_schemas_of_tools_are_compiled_aside_too(renderer: Any) -> None:
    parameters = {"type": "object", "properties": {"a": REJECTED["repeated-any"]}}
    body = {
        "model": "lsi/tiny-vl",
        "messages": [{"role": "user", "content": "x"}],
        "tools": [{"type": "function", "function": {"name": "f", "strict": True, "parameters": parameters}}],
        "tool_choice": "required",
    }
    line = json.dumps({"custom_id": "a", "method": "POST", "url": "/v1/chat/completions", "body": body}).encode()
    request = parse_row(line, row_index=0, line_number=1, members={})
    with pytest.raises(RowError, match="JSON schema in tools takes") as caught:
        asyncio.run(renderer.render(request, lambda _: b""))
    assert (caught.value.code, caught.value.param) == ("schema_rejected", "tools")


def test_a_compiler_killed_from_outside_is_started_again(renderer: Any) -> None:
    assert render(renderer, {"title": "before", **GOOD}) == "rendered"
    (worker,) = _workers(renderer)
    worker.kill()
    assert render(renderer, {"title": "after", **GOOD}) == "rendered"
    assert _workers(renderer) != [worker]


def test_memory_has_a_limit_and_the_next_schema_compiles(engine: VllmEngine, monkeypatch: pytest.MonkeyPatch) -> None:
    from lsi_ray.engine.vllm import grammars

    monkeypatch.setattr(grammars, "MEMORY_BYTES", 96 << 20)
    monkeypatch.setattr(grammars, "CONVERT_S", 20)
    checks = grammars.Grammars(renderer_config(engine), _tokenizer(engine), 20)
    either = nested(15, {"type": "string"}, lambda inner: {"anyOf": [inner, {"type": "array", "items": inner}]})
    try:
        with pytest.raises(RowError, match="takes more than 96 MiB to compile"):
            checks.check(_params(either), "x")
        checks.check(_params(GOOD), "x")
    finally:
        checks.close()


def _workers(renderer: Any) -> list[psutil.Process]:
    return psutil.Process(renderer._grammars._child._process.pid).children()


def _tokenizer(engine: VllmEngine) -> Any:
    from lsi_ray.engine.vllm.renderer import make_online_renderer

    return make_online_renderer(engine, renderer_config(engine)).renderer.get_tokenizer()


def _params(schema: Any) -> Any:
    from vllm.sampling_params import SamplingParams, StructuredOutputsParams

    return SamplingParams(structured_outputs=StructuredOutputsParams(json=schema))
