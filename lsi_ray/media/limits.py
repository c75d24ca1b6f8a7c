"""What media may cost: checked before anything of that size is allocated."""

from __future__ import annotations

from dataclasses import dataclass

from lsi_ray.errors import RowError


@dataclass(frozen=True, slots=True)
class MediaLimits:
    """Bounds on one image or video. Beyond them a row fails with `media_too_large`.

    A decoded pixel takes 3 bytes: the defaults allow 150 MB for an image and 1.5 GB for the sampled frames of a video
    (32 frames of 4K are 0.8 GB, 768 frames of 640x360, the most that Qwen's loaders sample, are 0.5 GB).
    """

    image_bytes: int = 20 << 20
    image_pixels: int = 50_000_000
    image_side: int = 16_384
    video_bytes: int = 2 << 30
    video_seconds: float = 4 * 3600.0
    video_frames: int = 1_000_000  # of the whole file
    frame_pixels: int = 36_000_000  # one frame of 8K
    sampled_frames: int = 4_096
    sampled_pixels: int = 512_000_000  # of all sampled frames together

    def check(self, what: str, value: float, most: float, unit: str) -> None:
        if value > most:
            message = f"The {what} is too large: {_number(value)} {unit}, at most {_number(most)} are accepted."
            raise RowError("media_too_large", message)


@dataclass(frozen=True, slots=True)
class DecoderLimits:
    """Bounds on the process that decodes. Memory beyond them is `media_too_large`, time `media_timeout`.

    `memory_bytes`: address space on top of what the process starts with; images of 49 megapixels took up to 0.8 GB, a
    video of 8K 0.6 GB. `image_seconds`: CPU time of one image, in any case, and more by its size, and at most in
    all: 49 megapixels took up to 1.4 s as a progressive JPEG of 14 MB, 2.7 s as a PNG of 16 bits, and get 3.2 and more;
    12 get 1.4 and take 0.4.
    `video_seconds`: of one video, in any case and per megabyte of its file, and at most in all: a small file that takes
    long is hostile. `wall`: the same in real time, as a multiple, but no less than `least_wall_seconds`; a busy machine
    gives a process less CPU than it asks for.
    `stall_seconds`: without any CPU time used nor asked for, as when it is stopped.
    """

    memory_bytes: int = 2 << 30
    image_seconds: float = 0.7
    most_image_seconds: float = 4.0
    video_seconds: float = 10.0
    most_video_seconds: float = 600.0
    wall: float = 20.0
    least_wall_seconds: float = 100.0
    stall_seconds: float = 1.5
    start_seconds: float = 60.0

    def image_cpu_seconds(self, pixels: int, size: int) -> float:
        """`size`: of the file, in bytes."""
        return min(self.image_seconds + 0.05 * pixels / 1e6 + 0.03 * size / 1e6, self.most_image_seconds)

    def video_cpu_seconds(self, size: int) -> float:
        return min(self.video_seconds * (1 + size / 1e6), self.most_video_seconds)


DEFAULT_LIMITS = MediaLimits()
DEFAULT_DECODER_LIMITS = DecoderLimits()


def _number(value: float) -> str:
    return f"{value:,.0f}" if value == int(value) else f"{value:,.1f}"
