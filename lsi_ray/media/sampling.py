"""Which frames of a video are wanted: the facts that decide it, and the default answer."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class VideoInfo:
    """A video as vLLM's loader sees it, so that vLLM's own samplers can be asked with these numbers.

    `duration` is total_frames / fps, in seconds, as there; it differs from the container's where the header is wrong.
    `width` and `height` are as stored: a rotated video's frames come out upright, with the two exchanged.
    """

    total_frames: int
    fps: float
    duration: float
    width: int
    height: int


Sampler = Callable[[VideoInfo], Sequence[int]]
"""Indices of wanted frames, in order of presentation from 0. Each is decoded once, whatever order they are given in."""


def uniform(num_frames: int = 32, fps: float = -1) -> Sampler:
    """At most `num_frames`, and at most `fps` per second, evenly from the first to the last (-1: no bound).

    The rule of vLLM's default loader (`VideoBackend`, and its default of 32), which all models without one of their own
    get.
    """

    def sample(info: VideoInfo) -> Sequence[int]:
        wanted = info.total_frames
        if num_frames > 0:
            wanted = min(wanted, num_frames)
        if fps > 0:
            wanted = min(wanted, math.floor(info.duration * fps))
        indices: list[int] = np.linspace(0, info.total_frames - 1, max(1, wanted), dtype=int).tolist()
        return indices

    return sample
