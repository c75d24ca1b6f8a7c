"""The wanted frames of a video.

Indices and pixels are equal to those of vLLM's own loader (vllm/multimodal/video_decoders/opencv.py; the parity test
compares them, maximum difference 0), but only what the wanted frames need is decoded: nothing after the last one,
nothing in groups of pictures without one, and no frame that no other refers to.
"""

from __future__ import annotations

from collections.abc import Container, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, Protocol

import av.error
import numpy as np
from av.video.reformatter import VideoReformatter
from numpy.typing import NDArray

from lsi_ray.errors import RowError
from lsi_ray.media.container import open_video
from lsi_ray.media.limits import DEFAULT_LIMITS, MediaLimits
from lsi_ray.media.sampling import Sampler, VideoInfo
from lsi_ray.media.sniff import Data, video_format
from lsi_ray.media.timeline import Timeline, count_frames, packets, read_timeline
from lsi_ray.media.wholeness import check_whole


@dataclass(frozen=True, slots=True)
class Video:
    """`frames`: uint8 of shape (len(indices), height, width, 3), RGB. `indices`: which frames they are, ascending."""

    frames: NDArray[np.uint8]
    indices: tuple[int, ...]
    info: VideoInfo


class Sink(Protocol):
    """Where decoded frames go, one by one. A second `begin` means that the first was in vain."""

    def begin(self, shape: tuple[int, ...]) -> None:
        """Frames, at most shape[0] of them, of (height, width, 3) are to come."""

    def put(self, pixels: NDArray[np.uint8]) -> None: ...


def decode_video(data: Data, sample: Sampler, limits: MediaLimits = DEFAULT_LIMITS) -> Video:
    """Decode the frames that `sample` asks for.

    Indices that the container's header promises but that do not exist are left out, as vLLM does; `indices` tells.
    Raises RowError `media_invalid`, `media_too_large` or `unsupported_media_type`.
    """
    frames = _Array()
    indices, info = decode_frames(data, sample, limits, frames)
    return Video(frames.array[: len(indices)], tuple(indices), info)


def decode_frames(data: Data, sample: Sampler, limits: MediaLimits, sink: Sink) -> tuple[list[int], VideoInfo]:
    """As `decode_video`, with the frames going to `sink`. Returns which they are."""
    file, timeline, info = _look(data, limits)
    wanted = ask(sample, info, limits)
    there = [i for i in wanted if i < timeline.frames]
    found = _decode_needed(file, timeline, there, sink) or _decode_in_order(file, there, sink)
    if not found.indices or len(found.indices) < len(there):
        message = f"The video is damaged: {len(found.indices)} of {len(there)} frames can be decoded."
        raise RowError("media_invalid", message)
    return found.indices, info


def video_info(data: Data, limits: MediaLimits = DEFAULT_LIMITS) -> VideoInfo:
    """Read all packets and decode nothing. Raises as `decode_video`."""
    return _look(data, limits)[2]


def _look(data: Data, limits: MediaLimits) -> tuple[_File, Timeline, VideoInfo]:
    limits.check("video file", len(data), limits.video_bytes, "bytes")
    # The decoder counts its padding too. Its bound is there for frames larger than the header promises.
    file = _File(data, video_format(data), 2 * limits.frame_pixels)
    check_whole(data, file.name)
    with file.open() as (container, stream):
        width, height = stream.codec_context.width, stream.codec_context.height
        limits.check(f"video of {width}x{height}", width * height, limits.frame_pixels, "pixels a frame")
        timeline = read_timeline(container, stream, limits)
        total, fps = count_frames(container, stream, timeline)
    limits.check("video", total, limits.video_frames, "frames")
    limits.check("video", total / fps, limits.video_seconds, "seconds")
    return file, timeline, VideoInfo(total, fps, total / fps, width, height)


def ask(sample: Sampler, info: VideoInfo, limits: MediaLimits) -> list[int]:
    """The sampler's answer in ascending order. Raises RowError `media_invalid`, `media_too_large` or the sampler's."""
    try:
        wanted = sorted({int(i) for i in sample(info)})
    except RowError:
        raise
    except (ValueError, ArithmeticError, RuntimeError) as error:
        message = f"The video ({info.total_frames} frames, {info.fps:g} a second) cannot be sampled: {error}"
        raise RowError("media_invalid", message) from error
    if not wanted or wanted[0] < 0:
        raise RowError("media_invalid", f"Of the video's {info.total_frames} frames none are sampled.")
    limits.check("video's sample", len(wanted), limits.sampled_frames, "frames")
    pixels = len(wanted) * info.width * info.height
    limits.check(f"video's sample of {len(wanted)} frames", pixels, limits.sampled_pixels, "pixels")
    return wanted


def _decode_needed(file: _File, timeline: Timeline, wanted: Sequence[int], sink: Sink) -> _Found | None:
    """None if a wanted frame did not come out at its time."""
    if not timeline.regular:
        return None
    order = timeline.order()
    at = {int(timeline.pts[order[i]]): i for i in wanted}
    found, left = _Found(len(wanted), sink), dict(at)
    try:
        with file.open() as (container, stream):
            for frame in _frames(container, stream, timeline.needed([int(order[i]) for i in wanted]), at):
                if frame.pts in left:
                    found.add(left.pop(frame.pts), frame)
    except RowError:
        return None
    return found if found.indices == wanted else None


def _frames(container: Any, stream: Any, ranges: Iterable[tuple[int, int]], wanted: Container[int]) -> Iterator[Any]:
    """Decode these ranges of packets. Of frames whose times are not wanted, only some come."""
    codec, ranges = stream.codec_context, iter(ranges)
    first, last = next(ranges, (0, -1))
    for at, packet in enumerate(packets(container, stream)):
        if at > last:
            yield from codec.decode(None)
            codec.flush_buffers()
            if (following := next(ranges, None)) is None:
                return
            first, last = following
        if at >= first:
            # The decoder may leave out a frame that no other refers to, unless it is wanted. libdav1d would keep to
            # what it was told first.
            codec.skip_frame = "DEFAULT" if packet.pts in wanted or codec.name == "libdav1d" else "NONREF"
            yield from codec.decode(packet)
    yield from codec.decode(None)


def _decode_in_order(file: _File, wanted: Sequence[int], sink: Sink) -> _Found:
    """Decode from the start and count what comes out, as OpenCV does: for streams whose times tell nothing."""
    found, left = _Found(len(wanted), sink), set(wanted)
    with file.open() as (container, stream):
        for i, frame in enumerate(_all_frames(container, stream)):
            if i in left:
                found.add(i, frame)
                left.remove(i)
            if not left:
                break
    return found


def _all_frames(container: Any, stream: Any) -> Iterator[Any]:
    for packet in container.demux(stream):
        try:
            yield from stream.codec_context.decode(packet)
        except av.error.InvalidDataError:
            continue  # one broken packet; the caller counts what is missing in the end


@dataclass(frozen=True, slots=True)
class _File:
    data: Data
    name: str
    max_pixels: int

    def open(self) -> AbstractContextManager[tuple[Any, Any]]:
        return open_video(self.data, self.name, self.max_pixels)


class _Found:
    """Hands frames on as they come, so that there is never a second copy of all of them."""

    def __init__(self, most: int, sink: Sink) -> None:
        self._most = most
        self._sink = sink
        self._reformatter = VideoReformatter()
        self._shape: tuple[int, ...] | None = None
        self.indices: list[int] = []

    def add(self, index: int, frame: Any) -> None:
        pixels = _upright_rgb(frame, self._reformatter)
        if self._shape is None:
            self._shape = pixels.shape
            self._sink.begin((self._most, *pixels.shape))
        elif pixels.shape != self._shape:
            raise RowError("media_invalid", "The video changes its picture size; one size is expected.")
        self._sink.put(pixels)
        self.indices.append(index)


class _Array:
    array: NDArray[np.uint8]

    def begin(self, shape: tuple[int, ...]) -> None:
        self.array = np.empty(shape, np.uint8)
        self._count = 0

    def put(self, pixels: NDArray[np.uint8]) -> None:
        self.array[self._count] = pixels
        self._count += 1


def _upright_rgb(frame: Any, reformatter: VideoReformatter) -> NDArray[np.uint8]:
    """As OpenCV converts, including its bicubic chroma. A view where it can be one.

    With one reformatter for all frames and one thread, 640x360 takes 0.07 ms; `frame.to_ndarray` makes a new one with
    a thread per core for every frame, and took 0.3 ms, on a busy machine up to 4.
    """
    if frame.format.name in ("yuv420p", "yuvj420p"):
        pixels: Any = reformatter.reformat(frame, format="rgb24", threads=1).to_ndarray()  # the same values for less
    else:
        converted = reformatter.reformat(frame, format="bgr24", interpolation="BICUBIC", threads=1)
        pixels = converted.to_ndarray()[..., ::-1]
    turns, rest = divmod(frame.rotation, 90)
    upright: NDArray[np.uint8] = np.rot90(pixels, turns) if turns and not rest else pixels
    return upright
