"""Finished rows while a batch runs, as lines of JSON, each with the row that resumes the stream behind it.

    {"row": 17, "kind": "output", "line": {...the line of output.jsonl...}}
    {"object": "results.end", "next_after": 17, "complete": false}

The last line tells a whole answer from one that broke off; `complete` says that no more will come.
"""

from __future__ import annotations

from collections.abc import AsyncIterator

from starlette.responses import StreamingResponse

from lsi_ray.service.backend import Backend, Caller, Result

MEDIA_TYPE = "application/x-ndjson"
FROM_START = -1
# Lines are sent together up to about this size: one send costs 50 us, however small it is.
_CHUNK_BYTES = 64 * 2**10

RESPONSES: dict[int | str, dict[str, object]] = {
    200: {
        "description": "One line for each finished row above `after`, in row order, up to the first that is not "
        "finished; then one line that says where to go on.",
        "content": {MEDIA_TYPE: {"schema": {"type": "string"}}},
    }
}


async def stream_results(
    backend: Backend, caller: Caller, batch_id: str, after: int | None, limit: int | None
) -> StreamingResponse:
    # Looked at first: a batch that ends while its rows are streamed is complete only for the next call.
    terminal = (await backend.get(caller, batch_id)).status.terminal
    start = FROM_START if after is None else after
    results = backend.results(caller, batch_id, start)
    first = await anext(results, None)  # refusals come before the answer has begun
    return StreamingResponse(_chunks(first, results, start, limit, terminal), media_type=MEDIA_TYPE)


async def _chunks(
    first: Result | None, results: AsyncIterator[Result], after: int, limit: int | None, terminal: bool
) -> AsyncIterator[bytes]:
    buffer, count, whole = bytearray(), 0, True
    async for result in _chain(first, results):
        if count == limit:
            whole = False
            break
        buffer += b'{"row":%d,"kind":"%s","line":%s}\n' % (result.row, result.kind.encode(), result.line)
        after, count = result.row, count + 1
        if len(buffer) >= _CHUNK_BYTES:
            yield bytes(buffer)
            buffer.clear()
    complete = b"true" if terminal and whole else b"false"
    next_after = b"null" if after == FROM_START else b"%d" % after
    yield bytes(buffer) + b'{"object":"results.end","next_after":%s,"complete":%s}\n' % (next_after, complete)


async def _chain(first: Result | None, rest: AsyncIterator[Result]) -> AsyncIterator[Result]:
    if first is not None:
        yield first
        async for result in rest:
            yield result
