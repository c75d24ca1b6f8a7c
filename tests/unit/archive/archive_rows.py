"""Makes rows and small archives for the tests of this folder."""

from __future__ import annotations

import io
import json
from typing import Any

from lsi_ray.archive.index import ArchiveIndex, Member, index_tar
from lsi_ray.archive.tar_writer import TarWriter

PNG = b"\x89PNG\r\n\x1a\n-not-really"


def chat(custom_id: str = "a", text: Any = "Hello", url: str = "/v1/chat/completions", **fields: Any) -> dict[str, Any]:
    body = {"model": "m", "messages": [{"role": "user", "content": text}]} | fields
    return {"custom_id": custom_id, "method": "POST", "url": url, "body": body}


def media_row(*urls: str, kind: str = "image_url", custom_id: str = "a") -> dict[str, Any]:
    return chat(
        custom_id, [{"type": "text", "text": "What is this?"}] + [{"type": kind, kind: {"url": u}} for u in urls]
    )


def encode(row: Any) -> bytes:
    return row if isinstance(row, bytes) else json.dumps(row, ensure_ascii=False).encode()


def archive(rows: list[Any] | bytes, files: dict[str, bytes] | None = None) -> tuple[io.BytesIO, ArchiveIndex]:
    """A plain tar with jobs.jsonl behind files/, and its index. Rows are objects or raw lines."""
    file = io.BytesIO()
    tar = TarWriter(file)
    for name, data in (files or {}).items():
        tar.add_bytes(f"files/{name}", data)
    tar.add_bytes("jobs.jsonl", rows if isinstance(rows, bytes) else b"".join(encode(row) + b"\n" for row in rows))
    tar.close()
    return file, index_tar(file)


def members(*names: str, size: int = 10) -> dict[str, Member]:
    return {name: Member(name, 0, size) for name in names}
