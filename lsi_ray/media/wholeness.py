"""Whether a video file is all there, by the sizes that its container declares. Nothing is decoded.

FFmpeg plays what it finds: of a Matroska file cut in half it reports the frames of the first half and no error. Asked
about such a video a model would answer about half of it, so it is refused.
"""

from __future__ import annotations

from lsi_ray.errors import RowError
from lsi_ray.media.sniff import Data

_MOV_CONTENT = (b"mdat", b"moov", b"moof")
_SEGMENT = 0x18538067


def check_whole(data: Data, name: str) -> None:
    """Raise RowError `media_invalid` if the file ends before its container does. `name`: of `sniff.VIDEO_FORMATS`."""
    declared = _DECLARED[name](data)
    if declared > len(data):
        message = f"The video is cut off: its container declares {declared:,} bytes, the file has {len(data):,}."
        raise RowError("media_invalid", message)


def _mov(data: Data) -> int:
    """The end of the last box with content; what may follow, such as a camera's own trailer, is of no concern."""
    at, end = 0, 0
    while at + 8 <= len(data):
        size, kind = int.from_bytes(data[at : at + 4], "big"), data[at + 4 : at + 8]
        if size == 1:
            size = int.from_bytes(data[at + 8 : at + 16], "big")
        elif size == 0:  # to the end of the file
            size = len(data) - at
        if size < 8:
            break
        at += size
        if kind in _MOV_CONTENT:
            end = at
    return end


def _matroska(data: Data) -> int:
    """The end of the first segment; 0 if it does not say (files recorded live)."""
    at = 0
    while at < len(data):
        kind, at = _number(data, at, keep_marker=True)
        size, at = _number(data, at, keep_marker=False)
        if size < 0 or kind < 0:
            return 0
        if kind == _SEGMENT:
            return at + size
        at += size
    return 0


def _number(data: Data, at: int, *, keep_marker: bool) -> tuple[int, int]:
    """An EBML number of 1 to 8 bytes at `at`, and where it ends; -1 for an unknown or a broken one."""
    first = data[at] if at < len(data) else 0
    length = 9 - first.bit_length()
    if not first or at + length > len(data):
        return -1, len(data)
    value = int.from_bytes(data[at : at + length], "big")
    if keep_marker:
        return value, at + length
    value &= (1 << 7 * length) - 1
    return (-1 if value == (1 << 7 * length) - 1 else value), at + length


_DECLARED = {"mov": _mov, "matroska": _matroska}
