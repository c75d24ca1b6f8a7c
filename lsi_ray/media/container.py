"""Opens a video file: only known containers and codecs, only these bytes, nothing that the file points to.

PyAV is given the demuxer by name, so that nothing is guessed from content (playlists, concatenations and device formats
are never tried), and a hook in place of FFmpeg's own opening of further files.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import av
import av.error
from av.stream import Disposition

from lsi_ray.errors import RowError
from lsi_ray.media.sniff import Data

# Decoders by FFmpeg's names of them; AV1 has two, libdav1d being the one that runs on a CPU.
CODECS = ("h264", "hevc", "vp8", "vp9", "libdav1d", "av1")
_READ_BYTES = 1 << 18  # per call from FFmpeg into Python
_OPTIONS = {
    "protocol_whitelist": "none",
    # FFmpeg tries the decoders of all streams, sound too, to find what they hold. The others' are never started.
    "codec_whitelist": ",".join(CODECS),
}


@contextlib.contextmanager
def open_video(data: Data, name: str, max_pixels: int) -> Iterator[tuple[Any, Any]]:
    """The PyAV container and its first video stream, whose decoder uses one thread and refuses larger frames.

    `name` is a demuxer of `sniff.VIDEO_FORMATS`. Raises RowError `media_invalid`, `media_too_large` (of memory) or
    `unsupported_media_type`, also for FFmpeg's errors within the block.
    """
    try:
        with av.open(
            _Reader(data),
            format=name,
            metadata_errors="replace",
            buffer_size=_READ_BYTES,
            io_open=_refuse,
            container_options=_OPTIONS,
        ) as container:
            yield container, _video_stream(container, max_pixels)
    except av.error.MemoryError as error:
        raise RowError("media_too_large", "The video is too large: decoding it takes too much memory.") from error
    except (av.error.FFmpegError, EOFError) as error:
        raise RowError("media_invalid", f"The video cannot be decoded: {reason(error)}") from error


def reason(error: Exception) -> str:
    """FFmpeg's words without the name of the file, which is only a Python object here."""
    return str(getattr(error, "strerror", None) or type(error).__name__).strip()


def _video_stream(container: Any, max_pixels: int) -> Any:
    # A cover picture is a video stream too, of one frame.
    streams = [s for s in container.streams.video if not s.disposition & Disposition.attached_pic]
    if not streams:
        raise RowError("media_invalid", "The video file holds no video stream.")
    stream = streams[0]
    codec = stream.codec_context
    if codec is None or codec.name not in CODECS:
        found = codec.name if codec is not None else "unknown"
        accepted = "H.264, HEVC, VP8, VP9 and AV1"
        raise RowError("unsupported_media_type", f"The video's codec is {found}; accepted are {accepted}.")
    # Throughput comes from many videos at once; more threads also delay frames.
    codec.thread_count = 1
    codec.options = {"max_pixels": str(max_pixels)}
    return stream


def _refuse(url: str, flags: int, options: dict[str, Any]) -> NoReturn:  # noqa: ARG001
    raise PermissionError("the video refers to another file")


class _Reader:
    """The file that PyAV reads. A BytesIO would copy a memoryview first, and a video may be large."""

    def __init__(self, data: Data) -> None:
        self._data = memoryview(data)
        self._at = 0

    def read(self, size: int) -> bytes:
        piece = bytes(self._data[self._at : self._at + size])
        self._at += len(piece)
        return piece

    def seek(self, offset: int, whence: int = 0) -> int:
        start = (0, self._at, len(self._data))[whence]
        if start + offset < 0:
            raise OSError(22, "seek to before the start")
        self._at = start + offset
        return self._at

    def tell(self) -> int:
        return self._at
