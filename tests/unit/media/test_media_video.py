from __future__ import annotations

import random
from collections.abc import Sequence
from fractions import Fraction

import numpy as np
import pytest
from media_clips import clip, noise, number, saved, silence, trimmed

from lsi_ray.errors import RowError
from lsi_ray.media import video
from lsi_ray.media.container import open_video
from lsi_ray.media.limits import MediaLimits
from lsi_ray.media.sampling import VideoInfo, uniform
from lsi_ray.media.video import decode_video, video_info


def numbers(data: bytes, wanted: Sequence[int]) -> list[int]:
    """Which frames come out when `wanted` are asked for."""
    return [number(frame) for frame in decode_video(data, lambda _: wanted).frames]


def refusal(data: bytes, limits: MediaLimits | None = None) -> RowError:
    with pytest.raises(RowError) as caught:
        decode_video(data, uniform(8), limits or MediaLimits())
    return caught.value


CLIPS = {
    "h264 in mp4": clip,
    "h264 with B-frames": lambda: clip(preset="fast", bf="3", noisy=True),
    "h264 of short open groups": lambda: clip(group=6, preset="fast", bf="3", **{"x264-params": "open-gop=1"}),
    "h264 in matroska": lambda: clip("matroska", rate=Fraction(30_000, 1001)),
    "h264 in fragments": lambda: clip(group=10, muxer={"movflags": "frag_keyframe+empty_moov"}),
    "hevc": lambda: clip(codec="libx265"),
    "hevc of 10 bits": lambda: clip(codec="libx265", pixels="yuv420p10le"),
    "vp8 in webm": lambda: clip("webm", "libvpx"),
    "vp9 in webm": lambda: clip("webm", "libvpx-vp9"),
    "vp9 in mp4": lambda: clip("mp4", "libvpx-vp9", group=12),
    "hevc in mov": lambda: clip("mov", "libx265"),
    "av1 in mp4": lambda: clip(codec="libsvtav1"),
    "longer sound than pictures": lambda: clip(seconds_of_audio=2),
    "variable rate": lambda: clip(times=[40 * i + 300 * (i // 10) for i in range(30)], group=7),
}


@pytest.fixture(scope="module", params=CLIPS)
def any_clip(request: pytest.FixtureRequest) -> bytes:
    return CLIPS[request.param]()


@pytest.mark.parametrize("wanted", [[0], [29], [0, 29], [3, 4, 5, 17], range(30)], ids=str)
def test_exactly_the_wanted_frames_come_out(any_clip: bytes, wanted: Sequence[int]) -> None:
    assert numbers(any_clip, wanted) == list(wanted)


def test_shortcuts_give_the_same_pixels_as_decoding_everything(
    any_clip: bytes, monkeypatch: pytest.MonkeyPatch
) -> None:
    wanted = [1, 2, 11, 20, 28]
    short = decode_video(any_clip, lambda _: wanted)
    monkeypatch.setattr(video, "_decode_needed", lambda *_: None)
    full = decode_video(any_clip, lambda _: wanted)
    assert np.array_equal(short.frames, full.frames)
    assert short.indices == full.indices == tuple(wanted)


def test_no_clip_needs_decoding_from_the_start(any_clip: bytes, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(video, "_decode_in_order", lambda *_: pytest.fail("the shortcut gave up"))
    assert numbers(any_clip, [4, 5, 19, 28]) == [4, 5, 19, 28]


def test_the_sampler_is_told_what_the_file_holds() -> None:
    data = clip(frames=30, size=(96, 64))
    assert video_info(data) == VideoInfo(total_frames=30, fps=25.0, duration=1.2, width=96, height=64)
    asked: list[VideoInfo] = []
    decode_video(data, lambda info: asked.append(info) or [0])
    assert asked == [video_info(data)]


@pytest.mark.parametrize(
    ("data", "frames", "fps"),
    [
        (lambda: clip("webm", "libvpx", rate=10), 30, 10),  # a container that does not count frames
        (lambda: clip("matroska", frames=31, seconds_of_audio=1.5), 31, 25),  # its length is that of the sound
        (lambda: clip(frames=6, times=[0, 40, 80, 1000, 2000, 3000]), 6, 6 / 3.04),
        (lambda: clip("matroska", times=[1000 * i for i in range(30)], group=5), 30, 1),  # 25 fps in the header
        (trimmed, 20, 25),  # 30 frames in the file, 10 of them hidden
        (lambda: clip(frames=1), 1, 25),
    ],
)
def test_frames_are_counted_where_headers_mislead(data: object, frames: int, fps: float) -> None:
    info = video_info(data())  # type: ignore[operator]
    assert info.total_frames == frames
    assert info.fps == pytest.approx(fps, rel=0.12)
    assert info.duration == pytest.approx(info.total_frames / info.fps)


def test_hidden_frames_of_a_trimmed_file_are_not_counted_as_first() -> None:
    assert numbers(trimmed(lead_in=10), [0, 1, 19]) == [40, 41, 59]


@pytest.mark.parametrize("rotation", [90, 180, 270, -90])
def test_rotated_videos_come_out_upright(rotation: int) -> None:
    straight = decode_video(clip(frames=2), uniform(1)).frames[0]
    turned = decode_video(clip(frames=2, rotation=rotation), uniform(1)).frames[0]
    assert np.array_equal(turned, np.rot90(straight, rotation // 90))


def test_frames_are_decoded_only_as_far_as_needed(monkeypatch: pytest.MonkeyPatch) -> None:
    data = clip(frames=60, group=10, sc_threshold="0")
    seen: list[int] = []
    original = video._frames

    def watched(*args: object) -> object:
        for frame in original(*args):  # type: ignore[arg-type]
            seen.append(frame.pts)
            yield frame

    monkeypatch.setattr(video, "_frames", watched)
    assert numbers(data, [12, 33]) == [12, 33]
    assert len(seen) <= 3 + 4  # from each group's key frame to the wanted frame


def test_duplicates_and_order_of_the_sample_do_not_matter() -> None:
    assert decode_video(clip(), lambda _: [7, 3, 7]).indices == (3, 7)


def test_indices_past_the_end_are_left_out() -> None:
    assert decode_video(clip(), lambda _: [0, 29, 30, 99]).indices == (0, 29)


@pytest.mark.parametrize("sample", [lambda _: [], lambda _: [-1], lambda info: [1 // (info.total_frames - 30)]])
def test_a_video_that_cannot_be_sampled_is_a_row_error(sample: object) -> None:
    with pytest.raises(RowError, match="sampled") as caught:
        decode_video(clip(), sample)  # type: ignore[arg-type]
    assert caught.value.code == "media_invalid"


def test_a_row_error_of_the_sampler_passes_unchanged() -> None:
    def sample(_: VideoInfo) -> Sequence[int]:
        raise RowError("my_code", "mine")

    with pytest.raises(RowError, match="mine") as caught:
        decode_video(clip(), sample)
    assert caught.value.code == "my_code"


@pytest.mark.parametrize(
    ("container", "codec"),
    [("mp4", "libx264"), ("webm", "libvpx"), ("matroska", "libx264")],
)
def test_a_file_cut_anywhere_is_refused(container: str, codec: str) -> None:
    data = clip(container, codec, frames=20)
    for cut in range(1, len(data) - 1, len(data) // 25):
        error = refusal(data[:cut])
        assert error.code in ("media_invalid", "unsupported_media_type"), cut
        with pytest.raises(RowError):
            decode_video(data[:cut], lambda _: [0])


def test_a_file_with_its_index_in_front_is_refused_when_cut() -> None:
    data = clip(frames=20, muxer={"movflags": "empty_moov+frag_keyframe"})
    assert data.index(b"moov") < data.index(b"mdat")
    error = refusal(data[:-100])
    assert error.code == "media_invalid"
    assert "cut off" in error.message


def test_damage_among_the_wanted_frames_is_told() -> None:
    data = bytearray(clip("matroska", "libvpx", 10, group=1, noisy=True))
    with open_video(bytes(data), "matroska", 1 << 20) as (container, stream):
        packet = [bytes(packet) for packet in container.demux(stream)][3]
    at = data.index(packet)
    data[at : at + len(packet)] = b"\xff" * len(packet)
    assert "9 of 10 frames" in refusal_of_all(bytes(data)).message


def refusal_of_all(data: bytes) -> RowError:
    with pytest.raises(RowError) as caught:
        decode_video(data, uniform(-1))
    return caught.value


def test_a_recording_of_unknown_length_is_accepted() -> None:
    assert numbers(clip("webm", "libvpx", muxer={"live": "1"}), [0, 11]) == [0, 11]


@pytest.mark.parametrize(
    "box",
    [b"\0\0\0\x01mdat" + (1 << 40).to_bytes(8, "big"), b"\0\0\1\0moov", b"\0\0\1\0moof"],
    ids=["64 bits", "moov", "moof"],
)
def test_a_box_that_reaches_past_the_end_is_told(box: bytes) -> None:
    assert "cut off" in refusal(clip() + box + bytes(8)).message


@pytest.mark.parametrize("trailer", [b"\0\0\0\0mdat and more", b"\x7f\0\0\0SEFT", b"junk"])
def test_what_follows_the_last_box_is_of_no_concern(trailer: bytes) -> None:
    assert numbers(clip() + trailer, [7]) == [7]


def test_the_decoder_refuses_frames_larger_than_the_header_promised() -> None:
    data = clip()
    with pytest.raises(RowError), open_video(data, "mov", 96 * 64 - 1) as (container, stream):
        list(container.decode(stream))
    with open_video(data, "mov", 96 * 64 * 2) as (container, stream):
        assert len(list(container.decode(stream))) == 30


@pytest.mark.parametrize(
    ("data", "code", "says"),
    [
        (b"", "media_invalid", "empty"),
        (b"#EXTM3U\n#EXT-X-TARGETDURATION:1\nfile:///etc/passwd\n", "unsupported_media_type", "a playlist"),
        (b"ffconcat version 1.0\nfile /etc/passwd\n", "unsupported_media_type", "a playlist"),
        (saved(noise(), "PNG"), "unsupported_media_type", "an image"),
        (saved(noise(), "AVIF"), "unsupported_media_type", "AVIF"),
        (b"RIFF\0\0\0\0AVI LIST", "unsupported_media_type", "AVI"),
        (saved(noise(), "GIF"), "unsupported_media_type", "an image (GIF)"),
        (b'<?xml version="1.0"?><MPD/>', "unsupported_media_type", "XML"),
        (clip("mp4", "mpeg2video", 5), "unsupported_media_type", "mpeg2video"),
        (clip("mp4", "mpeg4", 5), "unsupported_media_type", "mpeg4"),
        (clip("mov", "mjpeg", 5, pixels="yuvj420p"), "unsupported_media_type", "mjpeg"),
        (clip("matroska", "ffv1", 5), "unsupported_media_type", "ffv1"),
        (b"\0\0\0\x18ftypisom\0\0\0\0isommp42", "media_invalid", "decoded"),
    ],
)
def test_what_is_no_video_is_refused_saying_what_it_is(data: bytes, code: str, says: str) -> None:
    error = refusal(data)
    assert error.code == code
    assert says in error.message
    with pytest.raises(RowError):
        decode_video(data, lambda _: [0])


def test_sound_without_pictures_is_refused() -> None:
    assert "no video stream" in refusal(silence(0.5)).message


@pytest.mark.parametrize(
    "limits",
    [
        MediaLimits(video_bytes=100),
        MediaLimits(video_seconds=1.0),
        MediaLimits(video_frames=29),
        MediaLimits(frame_pixels=96 * 64 - 1),
        MediaLimits(sampled_frames=7),
        MediaLimits(sampled_pixels=8 * 96 * 64 - 1),
    ],
)
def test_limits(limits: MediaLimits) -> None:
    assert refusal(clip(), limits).code == "media_too_large"


def test_limits_are_inclusive() -> None:
    data = clip()
    exact = MediaLimits(len(data), 1, 1, len(data), 1.2, 30, 96 * 64, 8, 8 * 96 * 64)
    assert len(decode_video(data, uniform(8), exact).frames) == 8


def test_mutated_files_end_in_frames_or_a_row_error() -> None:
    seed = random.randrange(1 << 30)
    print("seed", seed)
    rng = random.Random(seed)
    originals = [clip(frames=8), clip("webm", "libvpx", 8), clip("mov", "libx265", 8)]
    for _ in range(150):
        data = bytearray(rng.choice(originals))
        for _ in range(rng.choice([1, 3, 30])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        try:
            assert decode_video(bytes(data), uniform(4)).frames.ndim == 4
        except RowError as error:
            assert error.code in ("media_invalid", "media_too_large", "unsupported_media_type")  # noqa: PT017


@pytest.mark.parametrize(
    ("num_frames", "fps", "expected"),
    [
        (4, -1, [0, 9, 19, 29]),
        (-1, -1, list(range(30))),
        (64, -1, list(range(30))),
        (32, 5, [0, 5, 11, 17, 23, 29]),
        (4, 0.1, [0]),
    ],
)
def test_uniform_sampling(num_frames: int, fps: float, expected: list[int]) -> None:
    assert list(uniform(num_frames, fps)(VideoInfo(30, 25.0, 1.2, 96, 64))) == expected
