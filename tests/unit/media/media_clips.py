"""Small images and videos made in memory, for the tests of media (also used by the parity test)."""

from __future__ import annotations

import io
from collections.abc import Sequence
from fractions import Fraction
from typing import Any

import av
import numpy as np
from numpy.typing import NDArray
from PIL import Image

_MS = Fraction(1, 1000)
QUICK = {
    "libx264": {"preset": "ultrafast"},
    "libx265": {"preset": "ultrafast", "x265-params": "log-level=none"},
    "libvpx": {"deadline": "realtime", "cpu-used": "8"},
    "libvpx-vp9": {"deadline": "realtime", "cpu-used": "8"},
}


def noise(width: int = 60, height: int = 40, seed: int = 0) -> Image.Image:
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def saved(image: Image.Image, kind: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def picture(i: int, width: int, height: int) -> NDArray[np.uint8]:
    """Frame `i` (of up to 64) of a test clip: below it shows `i` as six black or white bars, above it changes."""
    pixels = np.zeros((height, width, 3), np.uint8)
    pixels[: height // 2] = (i * 4 % 256, 90, 160)
    bar = width // 6
    for bit in range(6):
        if i >> bit & 1:
            pixels[height // 2 :, bit * bar : (bit + 1) * bar] = 255
    return pixels


def number(frame: NDArray[np.uint8]) -> int:
    """Which frame of a test clip this is, through any loss of quality."""
    height, width, _ = frame.shape
    bar = width // 6
    bits = [frame[height // 2 :, bit * bar : (bit + 1) * bar].mean() > 127 for bit in range(6)]
    return sum(1 << bit for bit, on in enumerate(bits) if on)


def clip(
    container: str = "mp4",
    codec: str = "libx264",
    frames: int = 30,
    *,
    size: tuple[int, int] = (96, 64),
    rate: Fraction | int = 25,
    pixels: str = "yuv420p",
    times: Sequence[int] | None = None,
    group: int | None = None,
    rotation: int = 0,
    seconds_of_audio: float = 0,
    noisy: bool = False,
    muxer: dict[str, str] | None = None,
    **options: str,
) -> bytes:
    """Encode a clip. `times`: of each frame, in milliseconds (variable frame rate). `group`: frames from key to key."""
    buffer = io.BytesIO()
    rng = np.random.default_rng(frames)
    with av.open(buffer, "w", format=container, options=muxer or {}) as output:
        stream = output.add_stream(codec, rate=rate)
        stream.width, stream.height = size
        stream.pix_fmt = pixels
        stream.options = QUICK.get(codec, {}) | options
        if group:
            stream.codec_context.gop_size = group
        if rotation:
            stream.set_display_rotation(rotation)
        if times is not None:
            stream.time_base = stream.codec_context.time_base = _MS
        sound = output.add_stream("aac" if container == "mp4" else "libopus", rate=48_000) if seconds_of_audio else None
        for i in range(frames):
            shown = picture(i, *size)
            if noisy:
                shown = np.where(rng.random((*shown.shape[:2], 1)) < 0.1, 128, shown).astype(np.uint8)
            frame = av.VideoFrame.from_ndarray(shown, format="rgb24")
            if times is not None:
                frame.pts, frame.time_base = times[i], _MS
            output.mux(stream.encode(frame))
        output.mux(stream.encode(None))
        if sound is not None:
            _mux_silence(output, sound, seconds_of_audio)
    return buffer.getvalue()


def silence(seconds: float) -> bytes:
    """An MP4 with sound and no pictures."""
    buffer = io.BytesIO()
    with av.open(buffer, "w", format="mp4") as output:
        _mux_silence(output, output.add_stream("aac", rate=48_000), seconds)
    return buffer.getvalue()


def _mux_silence(output: Any, stream: Any, seconds: float) -> None:
    for at in range(0, int(seconds * 48_000), 960):
        frame = av.AudioFrame(format=stream.codec_context.format.name, layout="stereo", samples=960)
        frame.sample_rate, frame.pts = 48_000, at
        for plane in frame.planes:
            plane.update(bytes(plane.buffer_size))
        output.mux(stream.encode(frame))
    output.mux(stream.encode(None))


def trimmed(lead_in: int = 10) -> bytes:
    """An MP4 cut without encoding again: its edit list hides `lead_in` frames between the key frame and the cut."""
    buffer = io.BytesIO()
    whole = clip(frames=60, group=30, sc_threshold="0", bf="2", preset="fast")
    with av.open(io.BytesIO(whole)) as source, av.open(buffer, "w", format="mp4") as output:
        stream = source.streams.video[0]
        copy = output.add_stream_from_template(stream)
        assert stream.time_base is not None
        start = int(30 / 25 / stream.time_base)
        cut = int((30 + lead_in) / 25 / stream.time_base)
        begun = False
        for packet in source.demux(stream):
            begun |= packet.is_keyframe and packet.pts is not None and packet.pts >= start
            if packet.size and begun:
                assert packet.pts is not None
                assert packet.dts is not None
                packet.pts, packet.dts, packet.stream = packet.pts - cut, packet.dts - cut, copy
                output.mux(packet)
    return buffer.getvalue()
