"""What an image file says it is, found without decoding, and a bound on the pieces it is made of.

A decoder's time depends on more than pixels and bytes. Within 20 MB, Pillow takes 4 to 7 s over millions of empty JPEG
segments or fill bytes, 6 s over 20,000 colour profiles in a PNG, and libjpeg 8 s over a hundred passes through 49
megapixels. The walks here refuse those in milliseconds; they read lengths and skip content, and take at most 50,000
steps. What is broken is left to the decoder, which says it better. The count of pixels also sets how much time a
decoder gets (`DecoderLimits.image_cpu_seconds`).
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass

from lsi_ray.errors import RowError
from lsi_ray.media.limits import MediaLimits
from lsi_ray.media.sniff import image_format

# Cameras write up to a hundred segments before the picture, for depth maps in XMP; a PNG's pixels come in pieces of
# 8 KB or more from most programs, which makes 2,560.
SEGMENTS = 1_000
CHUNKS = 50_000
OTHER_CHUNKS = 1_000  # that hold no pixels
PROFILES = 4  # colour profiles of a PNG, each unpacked: 0.3 ms
SKIPPED_BYTES = 1 << 16  # between segments, where there should be none
# Of pixels, as a multiple of the most an image may have. Most encoders make 10 passes, some 20.
PASSES = 20
MOST_PASSES = 5_000

# A marker; any fill bytes (0xFF) before it count as nothing. In a picture's data neither an escaped 0xFF nor a restart.
_SEGMENT = re.compile(rb"\xff([\x01-\xfe])")
_AFTER_SCAN = re.compile(rb"\xff([\x01-\xcf\xd8-\xfe])")
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset((0x01, *range(0xD0, 0xD9)))  # markers without a length
_ONE_PASS = frozenset((0xC0, 0xC1))  # unless the first scan leaves out a colour
_SCAN, _END = 0xDA, 0xD9


@dataclass(frozen=True, slots=True)
class Outline:
    """`name`: of `sniff.IMAGE_FORMATS`. `pixels`: as the header says, 0 where it does not."""

    name: str
    pixels: int


def read_outline(data: bytes, limits: MediaLimits) -> Outline:
    """Raises RowError `unsupported_media_type`, `media_invalid` (no bytes at all) or `media_too_large`."""
    limits.check("image file", len(data), limits.image_bytes, "bytes")
    name = image_format(data)
    if name == "JPEG":
        return Outline(name, _jpeg(data, limits))
    if name == "PNG":
        _check_chunks(data)
        return Outline(name, _number(data, 16) * _number(data, 20))
    return Outline(name, _webp(data) if name == "WEBP" else _gif(data))


def _jpeg(data: bytes, limits: MediaLimits) -> int:
    pixels, colours, several, scan = 0, 0, False, 0
    for marker, at in _segments(data, 2):
        if marker in _FRAMES:
            pixels = int.from_bytes(data[at + 3 : at + 5], "big") * int.from_bytes(data[at + 5 : at + 7], "big")
            colours, several = int.from_bytes(data[at + 7 : at + 8]), marker not in _ONE_PASS
        if marker == _SCAN:
            several |= data[at + 2 : at + 3] != bytes([colours])
            scan = at
        if marker in (_SCAN, _END):
            break
    if not several:  # the decoder looks at the first scan alone
        return pixels
    most = min(PASSES * limits.image_pixels // max(pixels, 1), MOST_PASSES)
    # The count (0.8 ms for a megabyte) takes for one what only looks like it, in a picture or a film behind the first:
    # then it is looked at closely.
    if data.count(b"\xff\xda", scan) > most and _has_more_scans(data, scan, most):
        message = f"The JPEG image draws its {pixels:,} pixels too often: at most {most:,} times are accepted."
        raise RowError("media_too_large", message)
    return pixels


def _segments(data: bytes, at: int) -> Iterator[tuple[int, int]]:
    """Markers, and where their segment's length stands. Ends where no further marker is."""
    skipped = 0
    for _ in range(SEGMENTS):
        found = _SEGMENT.search(data, at)
        if found is None:
            return
        skipped += found.start() - at
        if skipped > SKIPPED_BYTES:
            raise RowError(
                "media_too_large", f"The JPEG image holds {skipped:,} bytes of nothing between its segments."
            )
        marker, at = found[1][0], found.end()
        yield marker, at
        at = _after(data, at)
    message = f"The JPEG image is made of too many segments: at most {SEGMENTS:,} are accepted."
    raise RowError("media_too_large", message)


def _has_more_scans(data: bytes, at: int, most: int) -> bool:
    """Whether there are more passes than `most`, the first of which has its length at `at`, or a maze of tables."""
    scans, tables, pattern = 1, 0, _AFTER_SCAN
    while scans <= most and tables <= SEGMENTS:
        found = pattern.search(data, _after(data, at))
        if found is None or found[1][0] == _END:
            return False
        at = found.end()
        is_scan = found[1][0] == _SCAN
        scans, tables = (scans + 1, 0) if is_scan else (scans, tables + 1)
        pattern = _AFTER_SCAN if is_scan else _SEGMENT
    return True


def _after(data: bytes, at: int) -> int:
    """Where the segment ends whose marker ends at `at`."""
    if data[at - 1] in _BARE:
        return at
    return at + max(int.from_bytes(data[at : at + 2], "big"), 2)


def _check_chunks(data: bytes) -> None:
    at, profiles, others = 8, 0, 0
    for _ in range(CHUNKS):
        kind = data[at + 4 : at + 8]
        if len(kind) < 4 or kind == b"IEND":
            return
        others += kind not in (b"IDAT", b"fdAT", b"fcTL")
        profiles += kind == b"iCCP"
        if others > OTHER_CHUNKS or profiles > PROFILES:
            break
        at += 12 + _number(data, at)
    raise RowError("media_too_large", "The PNG image is made of too many chunks.")


def _webp(data: bytes) -> int:
    kind = data[12:16]
    if kind == b"VP8 ":
        return (_little(data, 26, 2) & 0x3FFF) * (_little(data, 28, 2) & 0x3FFF)
    if kind == b"VP8L":
        sides = _little(data, 21, 4)
        return ((sides & 0x3FFF) + 1) * ((sides >> 14 & 0x3FFF) + 1)
    return (_little(data, 24, 3) + 1) * (_little(data, 27, 3) + 1)


def _gif(data: bytes) -> int:
    return _little(data, 6, 2) * _little(data, 8, 2)


def _number(data: bytes, at: int) -> int:
    return int.from_bytes(data[at : at + 4], "big")


def _little(data: bytes, at: int, size: int) -> int:
    return int.from_bytes(data[at : at + size], "little")
