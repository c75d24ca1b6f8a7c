"""Makes the archive of a folder: jobs.jsonl first, then files/ in the order of names. Equal content, equal bytes."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from contextlib import nullcontext
from dataclasses import dataclass
from pathlib import Path

from lsi_ray.archive.atomic_file import atomic_file
from lsi_ray.archive.codes import refusal
from lsi_ray.archive.limits import DEFAULT_LIMITS, ArchiveLimits
from lsi_ray.archive.names import FILES, JOBS, clean_name, is_noise
from lsi_ray.archive.tar_writer import TarWriter, open_gzip
from lsi_ray.errors import ConfigError

_GZIP_SUFFIXES = (".tar.gz", ".tgz")


@dataclass(frozen=True, slots=True)
class Packed:
    files: int
    """Files in the archive, with jobs.jsonl."""
    size_in: int
    """Bytes of their contents."""
    size_out: int
    """Bytes of the archive."""
    skipped: tuple[str, ...]
    """Names in the folder that are no part of the format."""


def pack_folder(folder: Path, output: Path, *, level: int = 1, limits: ArchiveLimits = DEFAULT_LIMITS) -> Packed:
    """Write `output`, a `.tar`, `.tar.gz` or `.tgz` by its name, which is there whole or not at all.

    Links are packed as the files that they stand for, if those lie in the folder too. Raises ConfigError for a wrong
    command, ArchiveError for what a reader would refuse, naming the file.
    """
    compressed = output.name.endswith(_GZIP_SUFFIXES)
    if not compressed and output.suffix != ".tar":
        raise ConfigError(f"the archive {output.name!r} must end in .tar, .tar.gz or .tgz")
    if not folder.is_dir():
        raise ConfigError(f"{folder} is no folder")
    if output.resolve().is_relative_to((folder / FILES).resolve()):
        raise ConfigError(f"the archive {output} would lie in the {FILES} that it packs")
    files = _find(folder, limits)
    skipped = tuple(sorted(entry.name for entry in folder.iterdir() if entry.name not in (JOBS, FILES[:-1])))
    with atomic_file(output) as target:
        with open_gzip(target, level) if compressed else nullcontext(target) as plain:
            size_in = _write(TarWriter(plain), files, limits)
        size_out = target.tell()
        if size_out > limits.input_bytes:
            raise refusal("too_large", f"the archive has {size_out} bytes; at most {limits.input_bytes} are accepted")
    return Packed(len(files), size_in, size_out, skipped)


def _write(tar: TarWriter, files: dict[str, Path], limits: ArchiveLimits) -> int:
    total = 0
    for name, path in files.items():
        with path.open("rb") as source:
            size = os.fstat(source.fileno()).st_size
            limit = limits.jobs_bytes if name == JOBS else limits.member_bytes
            if size > limit:
                raise refusal("too_large", f"{path} has {size} bytes; at most {limit} are accepted")
            tar.add(name, size, source)
        total += size
        if total > limits.tar_bytes:
            raise refusal("too_large", f"up to {path} there are {total} bytes; at most {limits.tar_bytes} are accepted")
    tar.close()
    return total


def _find(folder: Path, limits: ArchiveLimits) -> dict[str, Path]:
    """Name in the archive -> file, in the order of packing."""
    top = folder.resolve()
    jobs = folder / JOBS
    if not jobs.exists():
        raise refusal("missing_jobs", f"{folder} has no {JOBS}")
    media = folder / FILES
    if media.is_symlink():
        raise refusal("unsupported_member", f"{media} is a link to a folder; put the folder itself there")
    found: dict[str, Path] = {}
    for path in sorted(_walk(media)) if media.exists() else ():
        name = clean_name(os.fsencode(path.relative_to(folder)), None, limits)
        if is_noise(name):
            continue
        if name in found:
            raise refusal("duplicate_name", f"{path} and {found[name]} have one name, {name!r}, after normalisation")
        found[name] = _checked(path, top)
    if len(found) + 1 > limits.members:
        raise refusal("too_large", f"{folder} has more than {limits.members} files")
    return {JOBS: _checked(jobs, top)} | dict(sorted(found.items()))


def _walk(folder: Path) -> Iterator[Path]:
    for path in folder.iterdir():
        if path.is_dir() and path.is_symlink():
            raise refusal("unsupported_member", f"{path} is a link to a folder; put the folder itself there")
        if path.is_dir():
            yield from _walk(path)
        else:
            yield path


def _checked(path: Path, top: Path) -> Path:
    """`path` if it is a regular file of the folder, or a link to one."""
    if not path.exists():
        raise refusal("unsupported_member", f"{path} is a link to nothing")
    if not path.resolve().is_relative_to(top):
        raise refusal("unsupported_member", f"{path} is a link that leads out of the folder")
    if not stat.S_ISREG(path.stat().st_mode):
        raise refusal("unsupported_member", f"{path} is no regular file")
    return path
