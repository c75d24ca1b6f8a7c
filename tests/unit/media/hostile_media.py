"""Media files that a stranger might send: bombs, lies in headers, and files that point elsewhere."""

from __future__ import annotations

import random
import struct
import zlib
from collections.abc import Callable, Iterator
from functools import cache

from media_clips import clip, noise, saved
from PIL import Image


def png(width: int, height: int, rows: int | None = None) -> bytes:
    """Black, one bit a pixel, with the data of so many rows."""
    raw = zlib.compress(bytes((width + 7) // 8 + 1) * (height if rows is None else rows), 9)
    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", raw), (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(_chunk(kind, body) for kind, body in chunks)


def _chunk(kind: bytes, body: bytes) -> bytes:
    return struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))


def text_bomb() -> bytes:
    """A PNG of 1x1 with a comment that unpacks to 100 MB."""
    plain = png(1, 1)
    return plain[:33] + _chunk(b"zTXt", b"note\0\0" + zlib.compress(bytes(100 << 20), 9)) + plain[33:]


def long_gif(frames: int) -> bytes:
    frame = b"\x2c" + struct.pack("<HHHHB", 0, 0, 2, 2, 0) + b"\x02\x03\x84\x11\x05\x00"
    return b"GIF89a" + struct.pack("<HHBBB", 2, 2, 0x80, 0, 0) + bytes(6) + frame * frames + b";"


def long_webp(frames: int) -> bytes:
    pictures = [noise(8, 8, seed) for seed in range(frames)]
    return saved(pictures[0], "WEBP", save_all=True, append_images=pictures[1:])


_ROOM = 20 << 20  # just within the limit of bytes


def _filled(before: bytes, unit: bytes, after: bytes) -> bytes:
    return before + unit * ((_ROOM - len(before) - len(after)) // len(unit)) + after


def scans(side: int, more: int) -> bytes:
    """A progressive JPEG with further passes over the whole picture."""
    parts = _passes(side)
    return b"\xff\xda".join(parts[:-1] + [parts[-1][:-2]] * (more + 1)) + b"\xff\xd9"


@cache
def _passes(side: int) -> list[bytes]:
    return saved(noise(64, 64).resize((side, side)), "JPEG", progressive=True, quality=5).split(b"\xff\xda")


def slow_images() -> dict[str, Callable[[], bytes]]:
    """Within all bounds of size, and of nothing but pieces. Most take their decoder 3 to 8 s."""
    jpeg, png, gif = saved(noise(), "JPEG"), saved(noise(), "PNG"), saved(noise(), "GIF")
    start, body = jpeg[:20], jpeg[20:]  # behind the JFIF segment
    screen = 13 + 3 * (2 << (gif[10] & 7))
    profile = _chunk(b"iCCP", b"a\0\0" + zlib.compress(bytes((1 << 20) - 1), 9))
    return {
        "JPEG of empty comments": lambda: _filled(start, b"\xff\xfe\0\2", body),
        "JPEG of empty segments": lambda: _filled(start, b"\xff\xe5\0\2", body),
        "JPEG of EXIF in pieces": lambda: _filled(start, b"\xff\xe1\0\x09Exif\0\0M", body),
        "JPEG of fill bytes": lambda: _filled(start, b"\xff", body),
        "JPEG of escaped fill bytes": lambda: _filled(start, b"\xff\0", body),
        "JPEG of junk": lambda: _filled(start, b"x", body),
        "JPEG of restarts": lambda: _filled(start, b"\xff\xd0", body),
        "JPEG of a hundred passes": lambda: scans(7_000, 100),
        "JPEG of passes between tables": lambda: scans(7_000, 100).replace(
            b"\xff\xda", b"\xff\xc4\0\2\xff\x01\xff\xda"
        ),
        "JPEG of passes behind an end in a table": lambda: scans(7_000, 100).replace(
            b"\xff\xda", b"\xff\xfe\0\4\xff\xd9\xff\xda"
        ),
        "PNG of empty chunks": lambda: _filled(png[:33], _chunk(b"abCd", b""), png[33:]),
        "PNG of chunks behind the pixels": lambda: _filled(png[:-12], _chunk(b"abCd", b""), png[-12:]),
        "PNG of empty pixels": lambda: _filled(png[:33], _chunk(b"IDAT", b""), png[33:]),
        "PNG of texts": lambda: _filled(png[:33], _chunk(b"tEXt", b"a\0"), png[33:]),
        "PNG of profiles": lambda: _filled(png[:33], profile, png[33:]),
        "GIF of a comment in pieces": lambda: _filled(gif[:screen] + b"\x21\xfe", b"\1x", b"\0" + gif[screen:]),
    }


def patched(data: bytes, box: bytes, at: int, value: bytes) -> bytes:
    """An MP4 with other bytes `at` an offset in the first such box, counted from the box's name."""
    start = data.index(box) + at
    return data[:start] + value + data[start + len(value) :]


def rebuilt(data: bytes, parents: tuple[bytes, ...], box: bytes, body: bytes) -> bytes:
    """An MP4 (with its index at the end) in which a box has another body, and its parents the sizes for that."""
    at = data.index(box) - 4
    old = int.from_bytes(data[at : at + 4], "big")
    new = bytearray(data[:at] + struct.pack(">I4s", 8 + len(body), box) + body + data[at + old :])
    for parent in parents:
        start = data.index(parent) - 4
        size = int.from_bytes(data[start : start + 4], "big") + 8 + len(body) - old
        new[start : start + 4] = size.to_bytes(4, "big")
    return bytes(new)


_HUGE = b"\x7f\xff\xff\xff"


def edited(edits: int) -> bytes:
    """An MP4 with so long an edit list: 4 s of CPU for each million."""
    body = struct.pack(">II", 0, edits) + struct.pack(">IiI", 1, 0, 65536) * edits
    return rebuilt(clip(frames=10), (b"moov", b"trak", b"edts"), b"elst", body)


def lying_videos() -> dict[str, bytes]:
    """MP4 files whose headers claim what is not there, or what no one can have."""
    plain = clip(frames=10)
    return {
        "huge picture in the sample entry": patched(plain, b"avc1", 28, b"\xff\xff\xff\xff"),
        "huge picture in the track header": patched(plain, b"tkhd", 80, _HUGE * 2),
        "endless duration of the film": patched(plain, b"mvhd", 20, _HUGE),
        "endless duration of the track": patched(plain, b"mdhd", 20, _HUGE),
        "no time base": patched(plain, b"mdhd", 16, bytes(4)),
        "two thousand million samples": patched(plain, b"stsz", 8, b"\0\0\0\1" + _HUGE),
        "two thousand million sizes": patched(plain, b"stsz", 12, _HUGE),
        "two thousand million durations": patched(plain, b"stts", 12, _HUGE),
        "samples of no duration": patched(plain, b"stts", 12, b"\0\0\0\x0a\0\0\0\0"),
        "samples of endless duration": patched(plain, b"stts", 12, b"\0\0\0\x0a" + _HUGE),
        "two thousand million chunks": patched(plain, b"stsc", 8, _HUGE),
        "chunks past the end": patched(plain, b"stco", 12, _HUGE),
        "an edit list longer than its box": patched(plain, b"elst", 8, _HUGE),
        "an edit list of a hundred thousand": edited(100_000),
        "edits of endless duration": patched(plain, b"elst", 12, _HUGE + _HUGE),
        "boxes nested in themselves": plain[:32] + struct.pack(">I4s", 1 << 20, b"moov") * 500 + plain[32:],
    }


def references(port: int) -> dict[str, bytes]:
    """Files that make a careless player open others: at a canary, and on the disk."""
    url = f"http://127.0.0.1:{port}/x"
    return {
        "HLS": f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{url}.ts\n#EXTINF:1,\nfile:///etc/passwd\n".encode(),
        "concat": f"ffconcat version 1.0\nfile {url}.mp4\nfile /etc/passwd\n".encode(),
        "DASH": f'<?xml version="1.0"?><MPD><BaseURL>{url}</BaseURL><Period/></MPD>'.encode(),
        "SVG": f'<svg xmlns="http://www.w3.org/2000/svg"><image href="{url}.png"/></svg>'.encode(),
        "SDP": f"v=0\no=- 0 0 IN IP4 127.0.0.1\nc=IN IP4 127.0.0.1\nm=video {port} RTP/AVP 96\n".encode(),
        "EPS": f"%!PS-Adobe-3.0 EPSF-3.0\n({url}) run\n".encode(),
        "an MP4 that keeps its data elsewhere": _data_elsewhere(url),
        "a playlist called MP4": b"\0\0\0\x18ftypisom\0\0\0\0isommp42" + f"\n#EXTM3U\n{url}\n".encode(),
    }


def _data_elsewhere(url: str) -> bytes:
    entry = struct.pack(">I4sI", 12 + len(url) + 1, b"url ", 0) + url.encode() + b"\0"
    parents = (b"moov", b"trak", b"mdia", b"minf", b"dinf")
    return rebuilt(clip(frames=5), parents, b"dref", struct.pack(">II", 0, 1) + entry)


def other_formats() -> dict[str, bytes]:
    picture = noise()
    named = {kind: saved(picture, kind) for kind in ("TIFF", "BMP", "AVIF", "ICO", "PPM", "TGA", "JPEG2000", "PDF")}
    return named | {
        "PSD": b"8BPS\0\1" + bytes(64),
        "HEIC": b"\0\0\0\x18ftypheic\0\0\0\0mif1heic" + bytes(64),
        "a PDF called JPEG": b"%PDF-1.7\n" + saved(picture, "JPEG"),
        "FITS": b"SIMPLE  =                    T" + bytes(100),
    }


def other_codecs() -> dict[str, bytes]:
    return {
        "MPEG-2": clip("mp4", "mpeg2video", 3),
        "MPEG-4 part 2": clip("mp4", "mpeg4", 3),
        "FFV1": clip("matroska", "ffv1", 3),
        "Motion JPEG": clip("mov", "mjpeg", 3, pixels="yuvj420p"),
        "GIF": clip("gif", "gif", 3, pixels="rgb8"),
        "AVI": clip("avi", "mpeg4", 3),
        "a raw picture": clip("matroska", "rawvideo", 3),
    }


IMAGES = {
    "JPEG": lambda: saved(noise(), "JPEG"),
    "progressive JPEG": lambda: saved(noise(), "JPEG", progressive=True),
    "PNG": lambda: saved(noise(), "PNG"),
    "PNG with alpha": lambda: saved(noise().convert("RGBA"), "PNG"),
    "16-bit PNG": lambda: saved(
        Image.linear_gradient("L").convert("I").point(lambda v: v * 257).convert("I;16"), "PNG"
    ),
    "WEBP": lambda: saved(noise(), "WEBP"),
    "lossless WEBP": lambda: saved(noise(), "WEBP", lossless=True),
    "GIF": lambda: saved(noise(), "GIF"),
    "odd and thin": lambda: saved(noise(1, 4001), "PNG"),
    "several halves of the window": lambda: saved(noise(1201, 701), "PNG", compress_level=1),
}


def mutations(originals: list[bytes], count: int, rng: random.Random) -> Iterator[bytes]:
    """Cut or flipped, from one byte to thirty."""
    for _ in range(count):
        data = bytearray(rng.choice(originals))
        if rng.random() < 0.2:
            del data[rng.randrange(1, len(data)) :]
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        yield bytes(data)
