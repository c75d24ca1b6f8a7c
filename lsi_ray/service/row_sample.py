"""Some finished rows of a batch, spread over it, with question and answer side by side, and its media made small.

Read from the batch's folder, where it is; a batch that was delivered is erased, and there is nothing to show.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import closing
from typing import Any

import msgspec

from lsi_ray.archive.messages import Kind
from lsi_ray.archive.rows import Request
from lsi_ray.batch_files import BatchFiles
from lsi_ray.config import Config
from lsi_ray.errors import RowError
from lsi_ray.ledger.records import NO_POSITION, Batch, ResultLine, SegmentRef
from lsi_ray.ledger.segments import Results
from lsi_ray.ledger.workdir import BatchDir
from lsi_ray.service.page_views import SampleRow

_CHARS = 2000
_VIDEO_BYTES = 64 << 20
"""A larger file is not read for one picture of it."""


def sample(
    batch: Batch, folder: BatchDir, segments: Sequence[SegmentRef], config: Config, most: int
) -> tuple[SampleRow, ...]:
    """In the order of the input. Reads `most` of the segments, however many there are."""
    results = Results([(folder.segments / ref.name, ref) for ref in _spread(segments, most)])
    lines = results.spread(most)
    if not batch.plan_rows:
        return tuple(_row(line, None) for line in lines)
    with closing(BatchFiles.open(folder, config)) as files:
        return tuple(_row(line, None if line.position == NO_POSITION else files) for line in lines)


def read_media(folder: BatchDir, config: Config, position: int, number: int) -> tuple[Kind, bytes] | None:
    """The image or video that a row refers to as its `number`-th; None: there is none, or it is not read."""
    with closing(BatchFiles.open(folder, config)) as files:
        if position >= len(files.plan):
            return None
        media = files.request(position).media
        if number >= len(media):
            return None
        ref = media[number]
        if ref.kind == "video" and ref.member is not None and files.index.members[ref.member].size > _VIDEO_BYTES:
            return None
        return ref.kind, files.read_media(ref)


def _spread(segments: Sequence[SegmentRef], most: int) -> list[SegmentRef]:
    count = min(most, len(segments))
    return [segments[index * len(segments) // count] for index in range(count)]


def _row(line: ResultLine, files: BatchFiles | None) -> SampleRow:
    record = msgspec.json.decode(line.line)
    custom_id, answer = record["custom_id"], _cut(_error(record) if line.failed else _answer(record))
    if files is None:
        return SampleRow(line.row, custom_id, line.failed, "", answer)
    try:
        request = files.request(line.position)
    except RowError:  # it was read once; whatever it is now, the answer stands
        return SampleRow(line.row, custom_id, line.failed, "", answer)
    media = tuple(ref.kind for ref in request.media)
    return SampleRow(line.row, custom_id, line.failed, _cut(_question(request)), answer, line.position, media)


def _error(record: dict[str, Any]) -> str:
    error = record["error"] or record["response"]["body"]["error"]
    return f"{error['code']}: {error['message']}"


def _answer(record: dict[str, Any]) -> str:
    body = record["response"]["body"]
    if choices := body.get("choices"):
        message = choices[0].get("message")
        return _said(message) if message is not None else str(choices[0].get("text") or "")
    vectors = [one.get("embedding") for one in body.get("data", ())]
    lengths = {len(vector) for vector in vectors if isinstance(vector, list)}
    numbers = f" of {lengths.pop()} numbers" if len(lengths) == 1 else ""
    return f"{len(vectors)} embedding{numbers}" if vectors else ""


def _said(message: dict[str, Any]) -> str:
    if message.get("content"):
        return str(message["content"])
    calls = [call.get("function", {}) for call in message.get("tool_calls") or ()]
    return "\n".join(f"{call.get('name')}({call.get('arguments', '')})" for call in calls)


def _question(request: Request) -> str:
    """What the user said last; of other endpoints, the input."""
    body = request.body
    if "messages" not in body:
        asked = body.get("prompt", body.get("input", ""))
        return asked if isinstance(asked, str) else msgspec.json.encode(asked).decode()
    users = [message for message in body["messages"] if message["role"] == "user"] or body["messages"]
    content = users[-1]["content"]
    if not isinstance(content, list):
        return content or ""
    return "\n".join(part["text"] for part in content if part["type"] == "text")


def _cut(text: str) -> str:
    return text if len(text) <= _CHARS else text[:_CHARS] + " ..."
