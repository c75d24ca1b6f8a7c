"""A video's packets, undecoded: when each is shown, and where decoding can start.

The number of frames is the one that vLLM's loader finds through OpenCV, because the indices to sample follow from it.
That loader takes the header's count and then checks it by a seek to the end of the stream, whose arithmetic assumes a
constant frame rate. Both are repeated here without decoding: equal on 100 of 100 random clips of constant and variable
frame rate. Where that count is off by more than a tenth (36 of those 100, most with a wrong frame rate in the header;
vLLM then samples frames that do not exist, or only the beginning), the true count and average rate are used instead.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import av.error
import numpy as np
from numpy.typing import NDArray

from lsi_ray.errors import RowError
from lsi_ray.media.limits import MediaLimits

_TRUSTED = 0.1  # how far vLLM's count may be from the truth, as a part of it
_US = 1_000_000  # FFmpeg's container durations are in microseconds


@dataclass(frozen=True, slots=True)
class Timeline:
    """`pts`, `key`, `shown`: per packet, in the order of the file, which is the order of decoding.

    `shown` leaves out what an edit list hides and what stands before the first key frame, in the file or in time.
    `regular`: every shown packet has a time of its own. Then frame i is the i-th in order of time, and only some
    packets need decoding for it.
    """

    pts: NDArray[np.int64]
    key: NDArray[np.bool_]
    shown: NDArray[np.bool_]
    regular: bool

    @property
    def frames(self) -> int:
        return int(self.shown.sum())

    def order(self) -> NDArray[np.intp]:
        """Packets in order of presentation: item i is the position of frame i's packet."""
        positions = np.flatnonzero(self.shown)
        ordered: NDArray[np.intp] = positions[np.argsort(self.pts[positions], kind="stable")]
        return ordered

    def needed(self, positions: Sequence[int]) -> list[tuple[int, int]]:
        """What to decode for the packets at these positions: disjoint ranges (first, last), each from a key frame."""
        ranges: list[tuple[int, int]] = []
        for position in sorted(positions):
            start = self._start(position)
            if ranges and start <= ranges[-1][1] + 1:
                ranges[-1] = (ranges[-1][0], position)
            else:
                ranges.append((start, position))
        return ranges

    def _start(self, position: int) -> int:
        # Frames shown before a key frame that stands before them in the file (an open group) need the group before it.
        keys = np.flatnonzero(self.key[: position + 1] & (self.pts[: position + 1] <= self.pts[position]))
        return int(keys[-1]) if keys.size else 0


def read_timeline(container: Any, stream: Any, limits: MediaLimits) -> Timeline:
    """Read the whole stream. Raises RowError `media_invalid` for one without frames, or with a broken packet, and
    `media_too_large` at the first frame too many."""
    pts: list[int | None] = []
    key: list[bool] = []
    hidden: list[bool] = []
    for packet in packets(container, stream):
        if packet.is_corrupt:
            raise RowError("media_invalid", f"The video is damaged at its packet {len(pts)}.")
        pts.append(packet.pts)
        key.append(packet.is_keyframe)
        hidden.append(packet.is_discard)
        limits.check("video", len(pts), limits.video_frames, "frames")
    if not any(key):
        raise RowError("media_invalid", "The video holds no frame to start decoding at.")
    timed = None not in pts
    times = np.array(pts if timed else range(len(pts)), np.int64)
    start = key.index(True)
    shown = ~np.array(hidden) & (np.arange(len(pts)) >= start) & (times >= times[start])
    if not shown.any():
        raise RowError("media_invalid", "The video holds no frame that can be shown.")
    regular = timed and len(np.unique(times[shown])) == int(shown.sum())
    return Timeline(times, np.array(key), shown, regular)


def count_frames(container: Any, stream: Any, timeline: Timeline) -> tuple[int, float]:
    """Frames and frames per second, as vLLM's loader finds them. Seeks: `container` is not at its start afterwards."""
    fps = float(stream.average_rate or 1 / stream.time_base)
    seconds = (container.duration or 0) / _US or float((stream.duration or 0) * stream.time_base)
    total = stream.frames or int(seconds * fps + 0.5)
    if total > 2 and container.duration and timeline.regular:
        found = _seek_to_end(container, stream, timeline, min(container.duration, total), fps)
        if 0 < found < total - 1:
            total = found
    true = timeline.frames
    if abs(total - true) > max(1, true * _TRUSTED):
        return true, (true / seconds if seconds else fps)
    return total, fps


def _seek_to_end(container: Any, stream: Any, timeline: Timeline, target: int, fps: float) -> int:
    """The frame number at which OpenCV says it is after a seek to frame `target`; 0 if it is not at the end then."""
    start, base = stream.start_time or 0, float(stream.time_base)

    def number(time: int) -> int:
        return int(fps * (time - start) * base + 0.5)

    first = number(int(timeline.pts[timeline.shown].min()))
    back = 16
    while True:
        landing = max(target - back, 0)
        times = _times_after_seek(container, stream, timeline, start + int(landing / fps / base + 0.5))
        if not times.size:
            return 0
        at = number(int(times.min())) - first
        if 0 <= at < target:
            break
        if landing == 0:
            return at
        back = back * 3 // 2
    steps = target - 1 - at
    return at + times.size if times.size - 1 <= steps else 0


def _times_after_seek(container: Any, stream: Any, timeline: Timeline, time: int) -> NDArray[np.int64]:
    """When the frames are shown that a decoder gives after a seek to (the key frame before) `time`."""
    with contextlib.suppress(av.error.FFmpegError):  # OpenCV reads on where it is
        container.seek(time, stream=stream)
    packet = next(packets(container, stream), None)
    at = int(np.argmax(timeline.pts == packet.pts)) if packet is not None else 0
    if packet is None or timeline.pts[at] != packet.pts:
        return timeline.pts[:0]
    rest: NDArray[np.int64] = timeline.pts[at:][timeline.shown[at:] & (timeline.pts[at:] >= timeline.pts[at])]
    return rest


def packets(container: Any, stream: Any) -> Iterator[Any]:
    """All but empty packets; PyAV ends with one, which is there to flush a decoder."""
    return (packet for packet in container.demux(stream) if packet.size)
