"""Which format bytes are, by their content. A name or a declared type is never trusted.

The formats are those that people have and that decode in this process: no Ghostscript, no playlists, no documents.
"""

from __future__ import annotations

from lsi_ray.errors import RowError

# Names are Pillow's for images and FFmpeg's demuxers for videos.
IMAGE_FORMATS = ("JPEG", "PNG", "WEBP", "GIF", "BMP", "TIFF", "AVIF")
VIDEO_FORMATS = ("mov", "matroska", "avi", "gif")

_IMAGE_MAGIC = (
    (b"\xff\xd8\xff", "JPEG"),
    (b"\x89PNG\r\n\x1a\n", "PNG"),
    (b"GIF87a", "GIF"),
    (b"GIF89a", "GIF"),
    (b"II*\0", "TIFF"),
    (b"MM\0*", "TIFF"),
    (b"BM", "BMP"),
)
_AVIF_BRANDS = (b"avif", b"avis")
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")
# First boxes of QuickTime and MP4 files; old QuickTime has no ftyp.
_MOV_BOXES = (b"ftyp", b"moov", b"mdat", b"free", b"skip", b"wide", b"pnot", b"styp")


def image_format(data: bytes) -> str:
    """One of IMAGE_FORMATS. Raises RowError `unsupported_media_type`, or `media_invalid` for no bytes at all."""
    head = _head(data, "image")
    for magic, name in _IMAGE_MAGIC:
        if head.startswith(magic):
            return name
    if head[:4] == b"RIFF" and head[8:12] == b"WEBP":
        return "WEBP"
    if head[4:8] == b"ftyp" and _brands(head) & set(_AVIF_BRANDS):
        return "AVIF"
    raise _unsupported("image", head, "JPEG, PNG, WebP, GIF, BMP, TIFF or AVIF")


def video_format(data: bytes) -> str:
    """One of VIDEO_FORMATS. Raises RowError `unsupported_media_type`, or `media_invalid` for no bytes at all."""
    head = _head(data, "video")
    if head[4:8] in _MOV_BOXES and not (head[4:8] == b"ftyp" and head[8:12] in _AVIF_BRANDS + _HEIF_BRANDS):
        return "mov"
    if head.startswith(b"\x1a\x45\xdf\xa3"):
        return "matroska"
    if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
        return "avi"
    if head.startswith((b"GIF87a", b"GIF89a")):
        return "gif"
    raise _unsupported("video", head, "MP4, MOV, WebM, Matroska, AVI or GIF")


def _head(data: bytes, kind: str) -> bytes:
    if not data:
        raise RowError("media_invalid", f"The {kind} is empty.")
    return bytes(data[:64])


def _brands(head: bytes) -> set[bytes]:
    """The major and the compatible brands of an ISO media file (as far as `head` reaches)."""
    size = int.from_bytes(head[:4], "big")
    return {head[8:12]} | {head[at : at + 4] for at in range(16, min(size, len(head)), 4)}


def _unsupported(kind: str, head: bytes, accepted: str) -> RowError:
    return RowError("unsupported_media_type", f"The {kind} is {_looks_like(head)}; accepted are {accepted}.")


def _looks_like(head: bytes) -> str:
    if head[4:8] == b"ftyp" and head[8:12] in _HEIF_BRANDS:
        return "HEIC"
    if head[4:8] == b"ftyp" and _brands(head) & set(_AVIF_BRANDS):
        return "an image"
    if head[4:8] == b"ftyp" or head.startswith(b"\x1a\x45\xdf\xa3"):
        return "a video"
    if any(head.startswith(magic) for magic, _ in _IMAGE_MAGIC[:6]) or head[8:12] == b"WEBP":
        return "an image"
    if head.startswith(b"%PDF"):
        return "a PDF"
    text = head.lstrip(b"\xef\xbb\xbf \r\n\t").lower()
    if text.startswith((b"<svg", b"<?xml", b"<!doctype", b"<html")):
        return "an SVG, XML or HTML text"
    return f"of a format not known here (it begins with {head[:8].hex(' ')})"
