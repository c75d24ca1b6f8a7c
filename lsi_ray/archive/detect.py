"""What a file is, by its content and never by its name."""

from __future__ import annotations

from typing import Literal

from lsi_ray.archive.codes import refusal
from lsi_ray.archive.gzip import GZIP_MAGIC
from lsi_ray.archive.tar import BLOCK, ZERO_BLOCK, adds_up

HEAD_BYTES = BLOCK
"""How much of a file `detect` wants to see; less only where the file is shorter."""

_OTHERS = (
    (b"PK\x03\x04", "a zip"),
    (b"PK\x05\x06", "an empty zip"),
    (b"\x28\xb5\x2f\xfd", "zstd-compressed"),
    (b"BZh", "bzip2-compressed"),
    (b"\xfd7zXZ\x00", "xz-compressed"),
    (b"7z\xbc\xaf\x27\x1c", "a 7z archive"),
    (b"Rar!", "a rar archive"),
    (b"\x04\x22\x4d\x18", "lz4-compressed"),
    (b"\x1f\x9d", "compressed by compress(1)"),
    (b"<", "an HTML or XML text, perhaps a storage server's error message"),
)


def detect(head: bytes) -> Literal["gzip", "tar"]:
    """Recognise an archive by its first `HEAD_BYTES` bytes. Raises ArchiveError `not_an_archive`.

    A damaged tar header still counts as a tar, so that the index can say where it is damaged.
    """
    if head.startswith(GZIP_MAGIC):
        return "gzip"
    block = head[:BLOCK]
    if block == ZERO_BLOCK or adds_up(block) or block[257:262] == b"ustar":
        return "tar"
    raise refusal("not_an_archive", f"this is no .tar and no .tar.gz: {_seems(head)}")


def refuse_other_formats(block: bytes) -> None:
    """Raise `not_an_archive` unless the first block of what should be a plain tar looks like one."""
    if detect(block) == "gzip":
        raise refusal("not_an_archive", "this is no plain tar: it is gzip-compressed (once more)")


def _seems(head: bytes) -> str:
    if not head:
        return "it is empty"
    for magic, what in _OTHERS:
        if head.startswith(magic):
            return f"it is {what}"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t")
    if text[:1] in (b"{", b"["):
        return "it is JSON text; put jobs.jsonl into a tar (lsi pack)"
    if len(head) < BLOCK:
        return f"it has only {len(head)} bytes"
    return f"it begins with {head[:8].hex(' ')}"
