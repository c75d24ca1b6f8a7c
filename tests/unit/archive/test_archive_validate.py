from __future__ import annotations

import io
import json
import random
import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from archive_rows import PNG, archive, chat, encode, media_row

from lsi_ray.archive.order import grouped
from lsi_ray.archive.plan import PLAN_DTYPE, prefix_keys
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.archive.rows import parse_row
from lsi_ray.archive.validate import MAX_FINDINGS, Validation, validate
from lsi_ray.errors import BatchRefused, RowError


def run(rows: Any, files: dict[str, bytes] | None = None, **options: Any) -> Validation:
    return validate(*archive(rows, files), **options)


def refused(rows: Any, **options: Any) -> list[tuple[str, int | None]]:
    with pytest.raises(BatchRefused) as caught:
        run(rows, **options)
    return [(finding.code, finding.line) for finding in caught.value.findings]


def failed(result: Validation) -> list[tuple[int, int, str | None, str]]:
    return [(one.row_index, one.line, one.custom_id, one.code) for one in result.failures]


def test_every_row_is_in_the_plan_or_in_the_failures() -> None:
    rng = random.Random(7)
    lines = [rng.choice([chat(str(n)), chat(str(n), temperature=9), b"{", b"", chat("same")]) for n in range(400)]
    file, index = archive(lines)
    result = validate(file, index)
    planned = result.plan["row"].tolist()
    assert sorted(planned + [one.row_index for one in result.failures]) == list(range(result.rows))
    assert result.rows == sum(line != b"" for line in lines)
    assert result.plan.dtype == PLAN_DTYPE
    for entry in result.plan:
        file.seek(int(entry["offset"]))
        line = file.read(int(entry["length"]))
        assert line == encode(lines[entry["line"] - 1])
        parse_row(line, row_index=int(entry["row"]), line_number=int(entry["line"]), members=index.members)


def test_counts_model_and_bad_rows() -> None:
    rows = [
        chat("text"),
        b"",
        media_row("file:files/a.png", "file:files/a.png", "data:image/png;base64,YQ==", custom_id="images"),
        media_row("file:files/v.mp4", kind="video_url", custom_id="video"),
        media_row("file:files/lost.png", custom_id="lost"),
        b"not json",
        {"custom_id": "embed", "method": "POST", "url": "/v1/embeddings", "body": {"model": "m", "input": "x"}},
        media_row("file:files/a.png", custom_id="text"),
    ]
    result = run(rows, {"a.png": PNG, "v.mp4": b"v", "unused.png": PNG})
    assert (result.model, result.rows) == ("m", 7)
    assert result.counts.requests == {"/v1/chat/completions": 3, "/v1/embeddings": 1}
    assert (result.counts.images, result.counts.videos) == (3, 1)
    assert (result.counts.media_files, result.counts.unused_files) == (2, 1)
    assert failed(result) == [
        (3, 5, "lost", "file_not_found"),
        (4, 6, None, "invalid_json_line"),
        (6, 8, "text", "duplicate_custom_id"),
    ]
    assert [finding.code for finding in result.warnings] == ["unused_files"]
    assert "files/unused.png" in result.warnings[0].message
    error = result.failures[2].error
    assert isinstance(error, RowError)
    assert (error.line, error.param, error.status) == (8, "custom_id", 400)
    assert 'line 8 has the custom_id "text" of line 1' in error.message


def test_a_close_name_is_offered() -> None:
    result = run([media_row("file:image1.png"), media_row("file:files/zzzzzzzz", custom_id="b")], {"image1.png": PNG})
    assert "did you mean file:files/image1.png?" in result.failures[0].message
    assert "did you mean" not in result.failures[1].message


def test_the_first_line_keeps_a_custom_id_also_when_it_is_bad() -> None:
    result = run([chat("a", temperature=9), chat("a"), chat("b"), chat("a", n=99), chat("b"), chat("b")])
    assert failed(result) == [
        (0, 1, "a", "invalid_value"),
        (1, 2, "a", "duplicate_custom_id"),
        (3, 4, "a", "invalid_value"),
        (4, 5, "b", "duplicate_custom_id"),
        (5, 6, "b", "duplicate_custom_id"),
    ]
    assert [failure.message.split(" of ")[1] for failure in result.failures if "dupl" in failure.code] == [
        "line 1",
        "line 3",
        "line 3",
    ]


@pytest.mark.parametrize("data", [b"", b"\n", b" \r\n\t\n"])
def test_no_rows(data: bytes) -> None:
    assert refused(data) == [("empty_file", None)]


def test_a_batch_of_bad_rows_only_is_accepted() -> None:
    result = run([b"{", chat("a", n=0)])
    assert (result.model, len(result.plan), len(result.failures)) == (None, 0, 2)
    assert run([b"{"], served_model="m").model == "m"
    assert run([b"{"], served_model=["m", "n"]).model is None


def test_mixed_and_unknown_models_are_refused_with_their_lines() -> None:
    rows = [chat("1"), chat("2", model="x"), chat("3"), chat("4", model="y"), chat("5", model="x"), b"{"]
    with pytest.raises(BatchRefused) as caught:
        run(rows)
    messages = [(one.code, one.line, one.message) for one in caught.value.findings]
    assert [entry[:2] for entry in messages] == [("model_mismatch", 2), ("model_mismatch", 4), ("invalid_json_line", 6)]
    assert 'lines 2, 5 for "x", but line 1 asks for "m"' in messages[0][2]
    assert caught.value.findings[0].param == "body.model"
    assert refused([chat("1", model="x")], served_model="m") == [("model_not_found", 1)]
    assert refused([chat("1"), chat("2", model="x")], served_model="m") == [
        ("model_not_found", 2),
        ("model_mismatch", 2),
    ]
    assert run([chat("1")], served_model="m").model == "m"
    assert run([chat("1")], served_model={"l", "m"}).model == "m"


def test_strict_refuses_for_a_bad_row_and_bounds_its_findings() -> None:
    assert run([chat("1")], strict=True).rows == 1
    assert refused([chat("1"), b"{", chat("1")], strict=True) == [("invalid_json_line", 2), ("duplicate_custom_id", 3)]
    with pytest.raises(BatchRefused) as caught:
        run([b"{"] * (MAX_FINDINGS + 7), strict=True)
    assert len(caught.value.findings) == MAX_FINDINGS + 1
    assert caught.value.findings[-1].message == "7 more findings are not listed"


def test_max_rows_and_too_many_rows() -> None:
    rows = [chat("1"), b"", b"{", chat("3", model="other")]
    result = run(rows, max_rows=2)
    assert (result.rows, len(result.plan), len(result.failures)) == (2, 1, 1)
    assert [(finding.code, finding.line) for finding in result.warnings] == [("rows_left_out", 4)]
    assert not run(rows[:3], max_rows=2).warnings
    assert refused([chat(str(n)) for n in range(4)], limits=RowLimits(rows=3)) == [("too_many_tasks", 4)]


def test_a_line_that_is_too_long_is_one_bad_row() -> None:
    rows = [chat("1"), chat("2", "x" * 5_000_000), chat("3")]
    result = run(rows, limits=RowLimits(line_bytes=1000))
    assert failed(result) == [(1, 2, None, "invalid_json_line")]
    assert result.plan["row"].tolist() == [0, 2]
    assert "at most 1000" in result.failures[0].message


def test_progress_reaches_the_end() -> None:
    calls: list[tuple[int, int, int]] = []
    run([chat(str(n)) for n in range(2500)], progress=lambda *call: calls.append(call))
    assert [call[0] for call in calls] == [1000, 2000, 2500]
    assert calls[-1][1] == calls[-1][2] > calls[0][1] > 0


def test_media_are_probed_once_per_kind_and_file() -> None:
    asked: list[tuple[str, bytes]] = []

    def probe(kind: str, data: bytes) -> None:
        asked.append((kind, data))
        if data == b"broken":
            raise RowError("invalid_image", "cannot be decoded", status=422)

    rows = [
        media_row("file:files/good.png", "file:files/bad.png", custom_id="1"),
        media_row("file:files/good.png", custom_id="2"),
        media_row("file:files/bad.png", custom_id="3"),
        media_row("file:files/good.png", kind="video_url", custom_id="4"),
        media_row("data:image/png;base64,YQ==", custom_id="5"),
    ]
    result = run(rows, {"good.png": PNG, "bad.png": b"broken"}, probe=probe)
    assert asked == [("image", PNG), ("image", b"broken"), ("video", PNG), ("image", b"a")]
    assert failed(result) == [(0, 1, "1", "invalid_image"), (2, 3, "3", "invalid_image")]
    assert result.failures[0].param == "body.messages[0].content[2].image_url.url"
    assert result.failures[1].message == "files/bad.png: cannot be decoded"
    assert result.failures[1].status == 422


def test_memory_per_row_is_small() -> None:
    rows = b"".join(encode(chat(f"row-{n}", "x" * 1000 + str(n))) + b"\n" for n in range(5000))
    file, index = archive(rows)
    tracemalloc.start()
    result = validate(file, index)
    grown, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert len(result.plan) == 5000
    assert grown < 60 * 5000
    assert peak < 5_000_000 + 250 * 5000  # a few chunks of 1 MiB, and the table with its sort keys


def test_plan_groups_rows_that_share_media_or_a_prefix() -> None:
    def row(n: int, system: str, image: str | None, text: str) -> dict[str, Any]:
        parts: list[dict[str, Any]] = [{"type": "text", "text": text}]
        if image:
            parts.insert(0, {"type": "image_url", "image_url": {"url": f"file:files/{image}"}})
        return chat(str(n), messages=[{"role": "system", "content": system}, {"role": "user", "content": parts}])

    rows = [
        row(0, "s", "a", "q0"),
        row(1, "t", None, "q1"),
        row(2, "s", "b", "q2"),
        row(3, "s", None, "long" * 64 + "3"),
    ]
    rows += [
        row(4, "s", "a", "q4"),
        row(5, "t", "a", "q1"),
        row(6, "s", None, "long" * 64 + "6"),
        row(7, "s", "b", "q7"),
    ]
    result = run(rows, {"a": PNG, "b": PNG})
    assert result.plan["row"].tolist() == [0, 4, 2, 7, 3, 6, 1, 5]


def test_a_batch_that_shares_nothing_keeps_its_order_also_when_mixed() -> None:
    files = {f"{n}.png": PNG for n in range(50)}
    rows = [media_row(f"file:files/{n}.png", custom_id=str(n)) if n % 2 else chat(str(n), f"q{n}") for n in range(50)]
    assert run(rows, files).plan["row"].tolist() == list(range(50))


def test_grouping_is_stable_and_complete() -> None:
    rng = np.random.default_rng(3)
    keys = np.stack([rng.integers(0, groups, 300, dtype=np.uint64) for groups in (3, 10, 40)])
    order = grouped(keys).tolist()
    assert sorted(order) == list(range(300))
    triples = [tuple(int(key[at]) for key in keys) for at in order]
    for width in (1, 2, 3):
        heads = [triple[:width] for triple in triples]
        changes = sum(left != right for left, right in pairwise(heads))
        assert changes + 1 == len(set(heads)), "each group stands in one piece"
    runs = pairwise(zip(order, triples, strict=True))
    assert all(earlier < later for (earlier, left), (later, right) in runs if left == right)


def test_prefix_keys_of_prompts_and_inputs() -> None:
    def keys(url: str, **body: Any) -> tuple[int, ...]:
        row = {"custom_id": "a", "method": "POST", "url": url, "body": {"model": "m", **body}}
        return prefix_keys(parse_row(json.dumps(row).encode(), row_index=0, line_number=1, members={}))

    long = "p" * 256
    one, two = keys("/v1/completions", prompt=long + "1"), keys("/v1/completions", prompt=long + "2")
    assert one[:3] == two[:3]
    assert one[3:] != two[3:]
    assert keys("/v1/completions", prompt="1") != keys("/v1/completions", prompt="2")
    assert keys("/v1/completions", prompt=[1] * 64 + [2])[:3] == keys("/v1/completions", prompt=[[1] * 64 + [3]])[:3]
    assert keys("/v1/embeddings", input=["a", "b"]) == keys("/v1/embeddings", input="a")


def test_a_file_that_became_shorter_is_noticed() -> None:
    file, index = archive([chat("1")])
    with pytest.raises(ValueError, match=r"ends .* bytes early"):
        validate(io.BytesIO(file.getvalue()[: index.jobs.offset + 10]), index)
