"""Rows of a batch that ask the same: computed once, answered to each.

Two rows are the same when everything that reaches the engine is (all but the custom_id), and when the engine has no
choice in its answer: greedy sampling, or an embedding. Then a second computation could only say the same again.
"""

from __future__ import annotations

import hashlib

import msgspec

from lsi_ray.archive.fields import EMBEDDINGS, GREEDY_BELOW
from lsi_ray.archive.rows import Request

NO_DIGEST = bytes(16)
"""Of a row that shares its answer with none."""

_encode = msgspec.json.Encoder(order="deterministic").encode


def request_digest(request: Request) -> bytes:
    """16 bytes that two rows share exactly when they are to share an answer, else `NO_DIGEST`."""
    temperature = request.body.get("temperature")
    if request.url != EMBEDDINGS and (temperature is None or temperature >= GREEDY_BELOW):
        return NO_DIGEST
    digest = hashlib.blake2b(_encode([request.url, request.body]), digest_size=16)
    for ref in request.media:
        name = ref.member.encode() if ref.member is not None else b""
        data = hashlib.blake2b(ref.data, digest_size=16).digest() if ref.data is not None else b""
        digest.update(b"%b:%d:%b%b" % (ref.kind.encode(), len(name), name, data))
    return digest.digest()


def shared_body(body: bytes, request_id: str) -> bytes:
    """The response body of a row that shares the answer `body` of another: its own id, and in `usage` that it was not
    computed for this row. All else stays as it is, to the byte."""
    fields = msgspec.json.decode(body, type=dict[str, msgspec.Raw])
    usage = msgspec.json.decode(fields["usage"]) if "usage" in fields else {}
    fields["id"] = msgspec.Raw(msgspec.json.encode(request_id))
    fields["usage"] = msgspec.Raw(msgspec.json.encode({**usage, "deduplicated": True}))
    return msgspec.json.encode(fields)
