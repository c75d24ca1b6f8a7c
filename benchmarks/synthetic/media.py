"""JPEG images and H.264 clips that look and weigh like photographs, not like noise or flat colour."""

from __future__ import annotations

import io

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

CLIP_SECONDS, CLIP_FPS, CLIP_SIZE = 15, 24, (640, 360)


def jpeg(seed: int, width: int, height: int) -> bytes:
    """A smooth picture with some grain: 80-200 KB at 640 to 1024 pixels."""
    buffer = io.BytesIO()
    Image.fromarray(_picture(np.random.default_rng(seed), width, height)).save(buffer, "JPEG", quality=88)
    return buffer.getvalue()


def clip(seed: int) -> bytes:
    """15 seconds of 640x360 at 24 frames/s: a slow pan over a picture, with a square that moves."""
    rng = np.random.default_rng(seed)
    width, height = CLIP_SIZE
    scene = _picture(rng, width + 240, height + 120)
    colour = rng.integers(0, 256, 3)
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=CLIP_FPS, options={"preset": "veryfast", "crf": "26"})
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.thread_count = 1  # so that the bytes do not depend on the machine
        for number in range(CLIP_SECONDS * CLIP_FPS):
            frame = av.VideoFrame.from_ndarray(_view(scene, number, colour), format="rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return buffer.getvalue()


def _picture(rng: np.random.Generator, width: int, height: int) -> NDArray[np.uint8]:
    coarse = Image.fromarray(rng.integers(0, 256, (16, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=np.int16)
    grain = rng.integers(-12, 13, (height, width, 1), dtype=np.int16)
    return np.clip(smooth + grain, 0, 255).astype(np.uint8)


def _view(scene: NDArray[np.uint8], number: int, colour: NDArray[np.int64]) -> NDArray[np.uint8]:
    width, height = CLIP_SIZE
    x, y = number % 240, number % 120
    view = scene[y : y + height, x : x + width].copy()
    at = (number * 3) % (width - 64)
    view[120:184, at : at + 64] = colour
    return view
