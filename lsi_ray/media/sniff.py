"""Which format bytes are, by their content. A name or a declared type is never trusted.

The formats are those that people have, and no more: every further decoder is one more that strangers can feed.
"""

from __future__ import annotations

from lsi_ray.errors import RowError

Data = bytes | memoryview

# Names are Pillow's for images and FFmpeg's demuxers for videos.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF")
VIDEO_FORMATS = ("mov", "matroska")

_IMAGE_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# First boxes of QuickTime and MP4 files; old QuickTime has no ftyp.
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")
# Formats that people try, so that the refusal can name them.
_OTHERS = (
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
    (b"8BPS", "a Photoshop file"),
    (b"%PDF", "a PDF"),
    (b"%!PS", "PostScript"),
    (b"#EXTM3U", "a playlist"),
    (b"ffconcat", "a playlist"),
)


def image_format(data: Data) -> str:
    """One of IMAGE_FORMATS. Raises RowError `unsupported_media_type`, or `media_invalid` for no bytes at all."""
    head = _head(data, "image")
    if name := _image(head):
        return name
    raise _unsupported("image", head, "JPEG, PNG, WebP and GIF")


def video_format(data: Data) -> str:
    """One of VIDEO_FORMATS. Raises RowError `unsupported_media_type`, or `media_invalid` for no bytes at all."""
    head = _head(data, "video")
    if head[4:8] in _MOV_BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS + _HEIF_BRANDS):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    raise _unsupported("video", head, "MP4, MOV, WebM and Matroska")


def _head(data: Data, kind: str) -> bytes:
    if not data:
        raise RowError("media_invalid", f"The {kind} is empty.")
    return bytes(data[:64])


def _image(head: bytes) -> str | None:
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    return next((name for magic, name in _IMAGE_MAGIC if head.startswith(magic)), None)


def _brands(head: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO media file (as far as `head` reaches)."""
    size = int.from_bytes(head[:4], "big")
    return {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}


def _unsupported(kind: str, head: bytes, accepted: str) -> RowError:
    return RowError("unsupported_media_type", f"The {kind} is {_looks_like(head)}; accepted are {accepted}.")


def _looks_like(head: bytes) -> str:
    if head[4:8] == b"ftyp":
        if _brands(head) & set(_AVIF_BRANDS):
            return "AVIF"
        return "HEIC" if head[8:12] in _HEIF_BRANDS else "a video"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "a video"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "AVI"
    if name := _image(head):
        return f"an image ({name})"
    if name := next((name for magic, name in _OTHERS if head.startswith(magic)), None):
        return name
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html", b"<mpd")):
        return "an SVG, XML or HTML text"
    return f"of a format not known here (it begins with {head[:8].hex(' ')})"
