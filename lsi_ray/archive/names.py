"""Names of members: which are safe, which are noise, and where the archive's root is.

A clean name is NFC, has no empty, `.` or `..` segment and no control character, and is relative. Nothing is ever
extracted under such a name, so names that differ only in case are two files.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable

from lsi_ray.archive.codes import refusal
from lsi_ray.archive.limits import ArchiveLimits
from lsi_ray.errors import ArchiveError

JOBS = "jobs.jsonl"
FILES = "files/"
_DRIVE = re.compile(r"[A-Za-z]:")
_SHOWN = 5
_MOST_SHRUNK = 4  # NFC makes a name at most 3 times as short, in bytes


def clean_name(raw: bytes, offset: int | None, limits: ArchiveLimits) -> str:
    """The name from the top of the tar, "" for the top itself. Raises ArchiveError `unsafe_path` or `too_large`."""
    # To normalise takes quadratic time over combining marks: 2 s for 128 KB, half an hour for a line of jobs.jsonl.
    if len(raw) > _MOST_SHRUNK * limits.name_bytes:
        raise _too_long(raw, offset, limits)
    try:
        name = raw.decode()
    except UnicodeDecodeError:
        raise refusal("unsafe_path", f"the name {_shown(raw)!r} is not UTF-8", offset) from None
    if not (name.isascii() and name.isprintable()):
        name = unicodedata.normalize("NFC", name)
        if any(unicodedata.category(char) == "Cc" for char in name):
            raise refusal("unsafe_path", f"the name {_shown(raw)!r} holds a control character", offset)
    if len(name) * 4 > limits.name_bytes and len(name.encode()) > limits.name_bytes:
        raise _too_long(raw, offset, limits)
    _refuse_unsafe(name, raw, offset)
    if name.startswith("./") or "//" in name or "/./" in name or name.endswith(("/", "/.")) or name == ".":
        name = "/".join(segment for segment in name.split("/") if segment not in ("", "."))
    return name


def _too_long(raw: bytes, offset: int | None, limits: ArchiveLimits) -> ArchiveError:
    return refusal("too_large", f"the name {_shown(raw)!r} is longer than {limits.name_bytes} bytes", offset)


def _refuse_unsafe(name: str, raw: bytes, offset: int | None) -> None:
    if not name:
        raise refusal("unsafe_path", "an entry has no name", offset)
    if name[0] == "/" or _DRIVE.match(name):
        raise refusal("unsafe_path", f"the name {_shown(raw)!r} is absolute", offset)
    if "\\" in name:
        raise refusal("unsafe_path", f"the name {_shown(raw)!r} holds a backslash", offset)
    if ".." in name and ".." in name.split("/"):
        raise refusal("unsafe_path", f"the name {_shown(raw)!r} leaves the archive", offset)


def is_noise(name: str) -> bool:
    """What macOS adds to folders and archives: AppleDouble files, `__MACOSX/`, `.DS_Store`."""
    last = name.rpartition("/")[2]
    return last.startswith("._") or last == ".DS_Store" or name.startswith("__MACOSX/")


def find_root(names: Iterable[str]) -> str:
    """The prefix before jobs.jsonl and files/: "" or one folder with its slash.

    Raises ArchiveError `missing_jobs` or `ambiguous_root`.
    """
    seen = [name for name in names if not is_noise(name)]
    jobs = [name for name in seen if name.rpartition("/")[2] == JOBS]
    if JOBS in jobs:
        candidates = [name for name in jobs if name.count("/") <= 1 and name != FILES + JOBS]
    else:
        candidates = [name for name in jobs if name.count("/") == 1]
    if not candidates:
        raise refusal("missing_jobs", f"there is no {JOBS} at the root or in one top folder; {_found(jobs, seen)}")
    if len(candidates) > 1:
        raise refusal("ambiguous_root", f"there is more than one {JOBS}: {', '.join(sorted(candidates)[:_SHOWN])}")
    root = candidates[0].removesuffix(JOBS)
    if root not in ("", FILES) and any(name.startswith(FILES) for name in seen):
        raise refusal("ambiguous_root", f"{JOBS} lies in {root}, but {FILES} lies beside it, not inside")
    return root


def _found(jobs: list[str], seen: list[str]) -> str:
    if jobs:
        return f"found {jobs[0]!r}: pack that folder itself (tar -C FOLDER .)"
    if not seen:
        return "the archive holds no files"
    return f"found {', '.join(map(repr, seen[:_SHOWN]))}{' ...' if len(seen) > _SHOWN else ''}"


def _shown(raw: bytes) -> str:
    """A name for a message: printable, and cut where someone hopes to fill a log with it."""
    text = raw[:200].decode(errors="replace")
    return text + "..." if len(raw) > 200 else text
