"""The media of a table's rows, as files of a batch: binary columns are written, files are linked.

A value is bytes, the struct of an Image column of `datasets` ({"bytes", "path"}), a path relative to the table, a
`data:` URL, or a list of these. Equal bytes are one file, so that rows that share an image share its computation.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from lsi_ray.archive.messages import Kind
from lsi_ray.errors import RowError
from lsi_ray.media.sniff import image_format, video_format

_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "GIF": "gif", "mov": "mp4", "matroska": "mkv"}
_HEAD = 64
_DIGEST = 32


class MediaFiles:
    """Writes into the `files/` of a batch's folder."""

    def __init__(self, batch: Path) -> None:
        self._batch = batch

    def urls(self, value: Any, kind: Kind, folder: Path) -> Iterator[str]:
        """The `file:` or `data:` URLs of a value. Raises ValueError with what is wrong with it."""
        if isinstance(value, (list, tuple)):
            for one in value:
                yield from self.urls(one, kind, folder)
        elif isinstance(value, dict):
            yield from self.urls(_inside(value), kind, folder)
        elif isinstance(value, (bytes, bytearray, memoryview)):
            yield self._write(bytes(value), kind)
        elif isinstance(value, str) and value.startswith("data:"):
            yield value
        elif isinstance(value, str) and value:
            yield self._link(value, kind, folder)
        else:
            raise ValueError(f"{value!r} is no {kind}: bytes, a path or a data: URL")

    def _write(self, data: bytes, kind: Kind) -> str:
        name = f"files/{hashlib.sha256(data).hexdigest()[:_DIGEST]}.{_suffix(data, kind)}"
        path = self._batch / name
        if not path.exists():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(data)
        return f"file:{name}"

    def _link(self, text: str, kind: Kind, folder: Path) -> str:
        if "://" in text:
            raise ValueError(f"{text!r} is a URL, and nothing is fetched: download it, and give its path")
        path = (folder / text).resolve()
        if not path.is_file():
            raise ValueError(f"there is no file {str(folder / text)!r}")
        with path.open("rb") as file:
            _suffix(file.read(_HEAD), kind)
        name = f"files/{_name(path, folder.resolve())}"
        target = self._batch / name
        if not target.exists():
            target.parent.mkdir(parents=True, exist_ok=True)
            _link_or_copy(path, target)
        return f"file:{name}"


def _inside(value: dict[str, Any]) -> Any:
    found = value.get("bytes") if value.get("bytes") is not None else value.get("path")
    if found is None:
        raise ValueError(f"a struct with neither 'bytes' nor 'path', but {', '.join(map(repr, value))}")
    return found


def _suffix(data: bytes, kind: Kind) -> str:
    try:
        return _SUFFIXES[image_format(data) if kind == "image" else video_format(data)]
    except RowError as error:
        raise ValueError(error.message) from None


def _name(path: Path, folder: Path) -> str:
    """The name that people know, where the file lies beside the table; else one that cannot be another file's."""
    if path.is_relative_to(folder):
        return path.relative_to(folder).as_posix()
    return f"{hashlib.sha256(os.fsencode(path.parent)).hexdigest()[:12]}/{path.name}"


def _link_or_copy(path: Path, target: Path) -> None:
    try:
        os.link(path, target)
    except OSError:  # another file system, or one without links
        shutil.copyfile(path, target)
