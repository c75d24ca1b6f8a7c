"""Every code with which an archive as a whole is refused, in one place.

| code | meaning |
|---|---|
| `not_an_archive` | neither a tar nor a gzip of one; the message says what it seems to be |
| `truncated` | the file ends inside a gzip stream, a header or a payload, or before the two end-of-archive blocks |
| `bad_gzip` | a gzip header, its deflate data, its CRC-32 or its length is wrong |
| `bad_checksum` | a tar header does not add up to its own checksum |
| `bad_header` | a tar header, pax record or long name adds up, but its content is malformed or contradicts itself |
| `trailing_data` | something other than zeros follows the end of the archive or of the gzip stream |
| `unsupported_member` | a link, device, fifo, sparse file or unknown type |
| `unsafe_path` | a name is absolute, leaves the archive, or holds bytes that no name may hold |
| `duplicate_name` | two regular files have one name, also after Unicode normalisation |
| `too_large` | one of `ArchiveLimits` is exceeded |
| `missing_jobs` | there is no jobs.jsonl at the root or in the one top folder |
| `ambiguous_root` | there is more than one jobs.jsonl, or jobs.jsonl and files/ lie in different folders |
| `changed_file` | a file changed its size while it was packed |
| `bad_index` | a saved index cannot be read back |
"""

from __future__ import annotations

from typing import Literal

from lsi_ray.errors import ArchiveError

ArchiveCode = Literal[
    "not_an_archive",
    "truncated",
    "bad_gzip",
    "bad_checksum",
    "bad_header",
    "trailing_data",
    "unsupported_member",
    "unsafe_path",
    "duplicate_name",
    "too_large",
    "missing_jobs",
    "ambiguous_root",
    "changed_file",
    "bad_index",
]


def refusal(code: ArchiveCode, message: str, offset: int | None = None) -> ArchiveError:
    """An `ArchiveError` whose code the type checker has compared with the table above."""
    return ArchiveError(code, message, offset)
