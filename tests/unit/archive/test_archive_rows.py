from __future__ import annotations

import base64
import copy
import io
import json
import pickle
import tracemalloc
import unicodedata
from typing import Any
from urllib.parse import quote

import pytest
from archive_rows import chat, encode, media_row, members

from lsi_ray.archive.index import Member
from lsi_ray.archive.jobs_lines import iter_lines
from lsi_ray.archive.row_limits import RowLimits
from lsi_ray.archive.rows import Request, parse_row, readable_custom_id
from lsi_ray.errors import RowError

NAMES = members(
    "jobs.jsonl", "files/a.png", "files/b c.png", "files/100%.png", "files/a%20b.png", "files/a b.png", "files/v.mp4"
)
DATA = "data:image/png;base64," + base64.b64encode(b"pixels").decode()


def parse(row: Any, names: dict[str, Member] | None = None, **limits: int) -> Request:
    known = NAMES if names is None else names
    return parse_row(encode(row), row_index=4, line_number=7, members=known, limits=RowLimits(**limits))


def without(row: dict[str, Any], *path: str) -> dict[str, Any]:
    row = copy.deepcopy(row)
    inner = row
    for key in path[:-1]:
        inner = inner[key]
    del inner[path[-1]]
    return row


def replaced(**keys: Any) -> dict[str, Any]:
    return chat() | keys


def content(*parts: Any) -> dict[str, Any]:
    return chat(text=list(parts))


CODES: list[tuple[Any, str, str | None]] = [
    (b"not json", "invalid_json_line", None),
    (b'{"custom_id": "a", "custom_id": "b"}', "invalid_json_line", None),
    (b"[]", "invalid_json_line", None),
    (b'"row"', "invalid_json_line", None),
    (b"null", "invalid_json_line", None),
    (without(chat(), "custom_id"), "missing_required_parameter", "custom_id"),
    (without(chat(), "method"), "missing_required_parameter", "method"),
    (without(chat(), "url"), "missing_required_parameter", "url"),
    (without(chat(), "body"), "missing_required_parameter", "body"),
    (without(chat(), "body", "model"), "missing_required_parameter", "body.model"),
    (without(chat(), "body", "messages"), "missing_required_parameter", "body.messages"),
    (chat(model=None), "missing_required_parameter", "body.model"),
    (replaced(custom_id=None), "missing_required_parameter", "custom_id"),
    (replaced(custom_id=5), "invalid_value", "custom_id"),
    (replaced(custom_id=""), "invalid_value", "custom_id"),
    (replaced(custom_id="x" * 513), "invalid_value", "custom_id"),
    (replaced(method="GET"), "invalid_method", "method"),
    (replaced(method="post"), "invalid_method", "method"),
    (replaced(url="/v1/responses"), "invalid_url", "url"),
    (replaced(url="/v1/chat/completions/"), "invalid_url", "url"),
    (replaced(url=["/v1/embeddings"]), "invalid_url", "url"),
    (replaced(priority=1), "unknown_field", "priority"),
    (replaced(body="text"), "invalid_value", "body"),
    (chat(model=""), "invalid_value", "body.model"),
    (chat(model=["m"]), "invalid_value", "body.model"),
    (chat(response_format={"type": "json_schema"}), "missing_required_parameter", "body.response_format.json_schema"),
    (chat(stream=True), "stream_not_supported", "body.stream"),
    (chat(stream="yes"), "stream_not_supported", "body.stream"),
    (chat(prompt="x"), "unknown_field", "body.prompt"),
    (chat(chat_template="{{ x }}"), "unknown_field", "body.chat_template"),
    (chat(temperature=2.1), "invalid_value", "body.temperature"),
    (chat(messages=[]), "invalid_value", "body.messages"),
    (chat(messages=[{"role": "robot", "content": "x"}]), "invalid_value", "body.messages[0].role"),
    (chat(messages=[{"content": "x"}]), "missing_required_parameter", "body.messages[0].role"),
    (chat(text=None), "missing_required_parameter", "body.messages[0].content"),
    (content(), "invalid_value", "body.messages[0].content"),
    (content({"type": "input_audio", "input_audio": {}}), "unsupported_content", "body.messages[0].content[0].type"),
    (content({"text": "x"}), "missing_required_parameter", "body.messages[0].content[0].type"),
    (content({"type": "text", "text": "x", "uuid": "u"}), "unknown_field", "body.messages[0].content[0].uuid"),
    (media_row("file:files/none.png"), "file_not_found", "body.messages[0].content[1].image_url.url"),
    (media_row("file:jobs.jsonl"), "file_not_found", "body.messages[0].content[1].image_url.url"),
    (media_row("file:"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:///files/a.png"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:/etc/passwd"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:../files/a.png"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:files/%2e%2e/%2e%2e/x"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:files\\a.png"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:C:/a.png"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("file:files/a%00.png"), "unsafe_path", "body.messages[0].content[1].image_url.url"),
    (media_row("https://host/a.png"), "remote_media_refused", "body.messages[0].content[1].image_url.url"),
    (media_row("HTTP://host/a.png"), "remote_media_refused", "body.messages[0].content[1].image_url.url"),
    (media_row("s3://bucket/a.png"), "unsupported_url", "body.messages[0].content[1].image_url.url"),
    (media_row("files/a.png"), "unsupported_url", "body.messages[0].content[1].image_url.url"),
    (media_row("lsi:0"), "unsupported_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:image/png,abc"), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:;base64,aaaa"), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (
        media_row(f"data:image/png;x={'y' * 2000};base64,YQ=="),
        "invalid_data_url",
        "body.messages[0].content[1].image_url.url",
    ),
    (media_row("data:image/png;base64,"), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:image/png;base64,YQ"), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:image/png;base64,YW\nE="), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:image/png;base64,YQ==YQ=="), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row("data:video/jpeg;base64,YQ==,YQ=="), "invalid_data_url", "body.messages[0].content[1].image_url.url"),
    (media_row(DATA, kind="video_url"), "invalid_data_url", "body.messages[0].content[1].video_url.url"),
]


@pytest.mark.parametrize(("row", "code", "param"), CODES, ids=[f"{n}-{case[1]}" for n, case in enumerate(CODES)])
def test_code_and_param_of_bad_rows(row: Any, code: str, param: str | None) -> None:
    with pytest.raises(RowError) as caught:
        parse(row)
    error = caught.value
    assert (error.code, error.param) == (code, param), error.message
    assert (error.line, error.status) == (7, 400)
    assert param is None or param.removesuffix("[0]") in error.message or code == "unsafe_path", error.message
    assert pickle.loads(pickle.dumps(error)).line == 7


def test_a_good_row_keeps_what_the_user_wrote() -> None:
    request = parse(chat("Grüße 😀", "Hello", temperature=0, seed=-5, max_tokens=100.0))
    assert (request.row_index, request.line, request.custom_id) == (4, 7, "Grüße 😀")
    assert request.url == "/v1/chat/completions"
    messages = [{"role": "user", "content": "Hello"}]
    assert request.body == {"model": "m", "messages": messages, "temperature": 0, "seed": -5, "max_tokens": 100}
    assert isinstance(request.body["max_tokens"], int)
    assert request.media == ()


@pytest.mark.parametrize("row", [
    {"url": "/v1/completions", "body": {"model": "m", "prompt": "Once"}},
    {"url": "/v1/completions", "body": {"model": "m", "prompt": [1, 2, 3]}},
    {"url": "/v1/embeddings", "body": {"model": "m", "input": ["a", "b"]}},
    {"url": "/v1/embeddings", "body": {"model": "m", "input": [[1], [2, 3]]}},
])  # fmt: skip
def test_the_other_endpoints(row: dict[str, Any]) -> None:
    request = parse({"custom_id": "a", "method": "POST"} | row)
    assert (request.url, request.body, request.media) == (row["url"], row["body"], ())


def test_media_are_named_in_order_and_their_urls_replaced() -> None:
    parts = [
        {"type": "image_url", "image_url": {"url": "file:files/b c.png", "detail": "high"}},
        {"type": "text", "text": "and"},
        {"type": "video_url", "video_url": {"url": "file:files/v.mp4"}},
        {"type": "image_url", "image_url": {"url": DATA}},
        {"type": "image_url", "image_url": {"url": "file:files/b c.png"}},
    ]
    messages = [{"role": "system", "content": "s"}, {"role": "user", "content": parts}]
    request = parse(chat(messages=messages))
    assert [(ref.kind, ref.member, ref.data) for ref in request.media] == [
        ("image", "files/b c.png", None),
        ("video", "files/v.mp4", None),
        ("image", None, b"pixels"),
        ("image", "files/b c.png", None),
    ]
    assert request.media[1].param == "body.messages[1].content[2].video_url.url"
    assert request.body["messages"][1]["content"] == [
        {"type": "image_url", "image_url": {"url": "lsi:0"}},
        {"type": "text", "text": "and"},
        {"type": "video_url", "video_url": {"url": "lsi:1"}},
        {"type": "image_url", "image_url": {"url": "lsi:2"}},
        {"type": "image_url", "image_url": {"url": "lsi:3"}},
    ]


@pytest.mark.parametrize(("url", "name"), [
    ("file:files/a.png", "files/a.png"),
    ("FILE:files/a.png", "files/a.png"),
    ("file:./files/a.png", "files/a.png"),
    ("file:files//./a.png", "files/a.png"),
    ("file:files/b c.png", "files/b c.png"),
    ("file:files/b%20c.png", "files/b c.png"),
    ("file:files/100%.png", "files/100%.png"),
    ("file:files/100%25.png", "files/100%.png"),
    ("file:files/a%20b.png", "files/a%20b.png"),  # as written comes first: this name really holds a %
    ("file:files/a b.png", "files/a b.png"),
])  # fmt: skip
def test_references_are_tried_as_written_and_then_decoded(url: str, name: str) -> None:
    assert parse(media_row(url)).media[0].member == name


@pytest.mark.parametrize("encoded", [False, True])
@pytest.mark.parametrize("form", ["NFC", "NFD"])
@pytest.mark.parametrize("name", ["Zürich é.png", "한국어/그림.png", "日本語.png", "emoji 😀#?.png"])
def test_names_match_in_any_unicode_form(name: str, form: Any, encoded: bool) -> None:
    stored = unicodedata.normalize("NFC", f"files/{name}")
    written = unicodedata.normalize(form, f"files/{name}")
    url = "file:" + (quote(written) if encoded else written)
    assert parse(media_row(url), members(stored)).media[0].member == stored


def test_a_missing_file_is_named_with_what_may_have_been_meant() -> None:
    with pytest.raises(RowError, match=r'no file "files/c.png" .*did you mean file:files/C.png'):
        parse_row(
            encode(media_row("file:files/c.png")),
            row_index=0,
            line_number=1,
            members={},
            suggest=lambda _: "files/C.png",
        )


def test_remote_urls_are_shown_without_what_signs_them() -> None:
    url = "https://user:pw-canary@bucket.example/a.png?X-Amz-Signature=canary#canary"
    for row in (media_row(url), media_row(url.replace("https", "ftp")), chat(model=5, reasoning_effort=url)):
        with pytest.raises(RowError) as caught:
            parse(row)
        assert "canary" not in caught.value.message
    with pytest.raises(RowError, match=r"https://bucket.example/a.png is not fetched: put the file into the archive"):
        parse(media_row(url))


def test_messages_stay_short_whatever_the_row_holds() -> None:
    for row in (
        chat(temperature="x" * 10**6),
        chat(model="m" * 10**6),
        chat(**{"k" * 10**6: 1}),
        replaced(url="/" * 10**6),
    ):
        with pytest.raises(RowError) as caught:
            parse(row)
        assert len(caught.value.message) < 400


def test_limits() -> None:
    with pytest.raises(RowError, match="more than 2 images and videos"):
        parse(media_row(*["file:files/a.png"] * 3), media=2)
    with pytest.raises(RowError, match="an array of 1 to 1 messages"):
        parse(chat(messages=[{"role": "user", "content": "x"}] * 2), messages=1)
    with pytest.raises(RowError) as caught:
        parse(media_row("file:files/a.png"), media_bytes=9)
    assert caught.value.code == "file_too_large"
    with pytest.raises(RowError, match="at most 20 are accepted"):
        parse(chat(), line_bytes=20)


@pytest.mark.parametrize(("line", "custom_id"), [
    (b'{"custom_id": "a", "temperature": NaN}', "a"),
    (b"\xef\xbb\xbf" + b'{"custom_id": "a"}', "a"),
    (b'{"custom_id": 5}', None),
    (b'{"custom_id": "\\ud800"}', None),
    (b'{"custom_id": "' + b"x" * 600 + b'"}', None),
    (b'{"custom_id": "a"', None),
    (b"[]", None),
    (b"[" * 100_000, None),
    (b"\xff\xfe\x00", None),
])  # fmt: skip
def test_the_custom_id_of_a_bad_row(line: bytes, custom_id: str | None) -> None:
    assert readable_custom_id(line) == custom_id


def lines_of(data: bytes, **limits: int) -> list[tuple[int, int, int, bytes | None]]:
    lead = b"\0" * 512
    jobs = Member("jobs.jsonl", len(lead), len(data))
    return [tuple(line) for line in iter_lines(io.BytesIO(lead + data + b"\n{}\n"), jobs, RowLimits(**limits))]


def test_lines_by_number_and_place() -> None:
    assert lines_of(b"{1}\n\n \t\r\n{22}\r\n\n{3}") == [
        (1, 512, 3, b"{1}"),
        (4, 521, 4, b"{22}"),
        (6, 528, 3, b"{3}"),
    ]
    assert lines_of(b"") == lines_of(b"\n \n\r\n") == []


@pytest.mark.parametrize("chunk", [1, 2, 3, 7, 64])
def test_lines_do_not_depend_on_how_the_file_is_read(chunk: int, monkeypatch: pytest.MonkeyPatch) -> None:
    data = b"a" * 8 + b"\r\n" + b"b" * 9 + b"\n\n" + b"c" * 50 + b"\r\n" + b"d" * 8 + b"\n" + b"e" * 9
    expected = lines_of(data, line_bytes=8)
    assert expected == [
        (1, 512, 8, b"a" * 8),
        (2, 522, 9, None),
        (4, 533, expected[2][2], None),
        (5, 585, 8, b"d" * 8),
        (6, 594, 9, None),
    ]
    monkeypatch.setattr("lsi_ray.archive.jobs_lines._CHUNK_BYTES", chunk)
    assert lines_of(data, line_bytes=8) == expected


def test_every_line_can_be_read_again_by_its_place() -> None:
    rows = [json.dumps(chat(str(n), "x" * (n * 37 % 300))).encode() for n in range(500)]
    data = b"\r\n".join(rows)
    file = io.BytesIO(data)
    for (number, offset, length, line), row in zip(
        iter_lines(file, Member("jobs.jsonl", 0, len(data)), RowLimits()), rows, strict=True
    ):
        file.seek(offset)
        assert file.read(length) == line == row, number


def test_a_long_line_is_measured_in_bounded_memory() -> None:
    file = io.BytesIO(b"{}\n" + b"x" * 40_000_000 + b"\n{}")
    tracemalloc.start()
    found = list(iter_lines(file, Member("jobs.jsonl", 0, 40_000_006), RowLimits(line_bytes=1_000_000)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert [(line.number, line.length, line.data) for line in found] == [
        (1, 2, b"{}"),
        (2, 40_000_000, None),
        (3, 2, b"{}"),
    ]
    assert peak < 8_000_000
