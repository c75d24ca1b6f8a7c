"""Our media in vLLM's chat parsing: a connector that resolves `lsi:N` to the N-th media part of the row at hand.

vLLM never sees a URL or a path of a user's, and never decodes: the guard of `lsi_ray.media` does, in a process of its
own, once per distinct file. Videos are sampled by vLLM's own loader class for the model, so the frames are those that
`vllm serve` would pick.
"""

from __future__ import annotations

import hashlib
import inspect
from collections import OrderedDict
from collections.abc import Callable, Sequence
from contextvars import ContextVar
from typing import Any

from lsi_ray.archive.rows import MediaRef
from lsi_ray.engine.vllm.imports import (
    MEDIA_CONNECTOR_REGISTRY,
    VIDEO_LOADER_REGISTRY,
    MediaConnector,
    MediaWithBytes,
    VideoSourceMetadata,
    VideoTargetMetadata,
    get_video_loader_backend_for_processor,
)
from lsi_ray.errors import RowError
from lsi_ray.media.guard import MediaGuard
from lsi_ray.media.sampling import VideoInfo
from lsi_ray.media.video import Video

CONNECTOR = "lsi"

RowMedia = Sequence[tuple[MediaRef, bytes]]
row_media: ContextVar[RowMedia] = ContextVar("row_media")


class DecodedMedia:
    """The last decoded media by content, within a byte budget: rows that share a file decode it once. And the guard
    that decodes the others, whose child starts with the first of them."""

    def __init__(self, max_bytes: int) -> None:
        self._max_bytes = max_bytes
        self._bytes = 0
        self._items: OrderedDict[Any, tuple[Any, int]] = OrderedDict()
        self.guard = MediaGuard()
        self.decoded = 0
        self.reused = 0

    def get(self, key: Any, decode: Callable[[], tuple[Any, int]]) -> Any:
        if key in self._items:
            self._items.move_to_end(key)
            self.reused += 1
            return self._items[key][0]
        value, size = decode()
        self.decoded += 1
        if size <= self._max_bytes:
            self._items[key] = (value, size)
            self._bytes += size
        while self._bytes > self._max_bytes:
            _, (_, dropped) = self._items.popitem(last=False)
            self._bytes -= dropped
        return value


decoded_media: ContextVar[DecodedMedia] = ContextVar("decoded_media")


@MEDIA_CONNECTOR_REGISTRY.register(CONNECTOR)
class ArchiveConnector(MediaConnector):  # type: ignore[misc]
    """Resolves `lsi:N`; refuses everything else."""

    async def fetch_image_async(self, image_url: str, *, image_mode: str | None = "RGB") -> Any:
        del image_mode  # always RGB: alpha is composed on white, as vLLM does by default
        ref, data = _part(image_url, "image")
        media = decoded_media.get()
        return media.get(("image", _digest(data)), lambda: _image(media.guard, ref, data))

    async def fetch_video_async(
        self, video_url: str, *, image_mode: str | None = "RGB", video_processor: str | None = None
    ) -> Any:
        del image_mode
        ref, data = _part(video_url, "video")
        options = dict(self.media_io_kwargs.get("video", {}))
        backend = options.pop("video_backend", None) or get_video_loader_backend_for_processor(video_processor)
        key = ("video", _digest(data), backend, tuple(sorted(options.items())))
        media = decoded_media.get()
        return media.get(key, lambda: _video(media.guard, ref, data, backend or "opencv", options))

    async def load_from_url_async(self, url: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        raise RowError("unsupported_url", f"media reference {url[:64]!r} is not part of the archive")

    def load_from_url(self, url: str, *args: Any, **kwargs: Any) -> Any:  # noqa: ARG002
        raise RowError("unsupported_url", f"media reference {url[:64]!r} is not part of the archive")


def _part(url: str, kind: str) -> tuple[MediaRef, bytes]:
    number = url.removeprefix("lsi:")
    parts = row_media.get()
    assert url.startswith("lsi:"), url[:64]
    ref, data = parts[int(number)]
    if ref.kind != kind:
        raise RowError("invalid_value", f"{ref.param} holds a {ref.kind}, where a {kind} belongs", param=ref.param)
    return ref, data


def _digest(data: bytes) -> bytes:
    return hashlib.blake2b(data, digest_size=16).digest()


def _image(guard: MediaGuard, ref: MediaRef, data: bytes) -> tuple[Any, int]:
    with _named(ref):
        picture = guard.decode_image(data).picture
    # vLLM hashes the original bytes for its caches when it gets them along with the pixels.
    return MediaWithBytes(picture, data), 4 * picture.width * picture.height + len(data)


def _video(guard: MediaGuard, ref: MediaRef, data: bytes, backend: str, options: dict[str, Any]) -> tuple[Any, int]:
    loader = VIDEO_LOADER_REGISTRY.load(backend)
    target, sampling = _target(loader, options)

    def sample(info: VideoInfo) -> Sequence[int]:
        source = _source(loader, info)
        try:
            return list(loader.compute_frames_index_to_sample(source, target, **sampling))
        except ValueError as error:
            raise RowError("media_invalid", str(error)) from None

    with _named(ref):
        video = guard.decode_video(data, sample)
    metadata = _metadata(loader, video, backend)
    return MediaWithBytes((video.frames, metadata), data), video.frames.nbytes + len(data)


def _target(loader: Any, options: dict[str, Any]) -> tuple[VideoTargetMetadata, dict[str, Any]]:
    """What vLLM's VideoMediaIO and the loader's own defaults make of num_frames and fps."""
    defaults = {
        name: parameter.default
        for name, parameter in inspect.signature(loader.load_bytes).parameters.items()
        if parameter.default is not inspect.Parameter.empty
    }
    rest = dict(options)
    num_frames = rest.pop("num_frames", 32)  # VideoMediaIO's default
    fps = rest.pop("fps", defaults.get("fps", -1))
    max_duration = rest.pop("max_duration", defaults.get("max_duration", 300))
    rest.pop("backend", None)
    rest.pop("frame_recovery", None)
    return VideoTargetMetadata(num_frames=num_frames, fps=fps, max_duration=max_duration), rest


def _source(loader: Any, info: VideoInfo) -> VideoSourceMetadata:
    source = VideoSourceMetadata(total_frames_num=info.total_frames, original_fps=info.fps, duration=info.duration)
    prepare = getattr(loader, "_prepare_source", None)  # some loaders adjust what they were told; not all in 0.26
    return prepare(source) if prepare else source


def _metadata(loader: Any, video: Video, backend: str) -> dict[str, Any]:
    source = _source(loader, video.info)
    metadata: dict[str, Any] = loader.create_hf_metadata(
        source=source, video_backend=backend, valid_frame_indices=list(video.indices)
    )
    return metadata


class _named:
    """Puts the reference's name and param on a RowError that decoding raises."""

    def __init__(self, ref: MediaRef) -> None:
        self._ref = ref

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if isinstance(error, RowError) and error.param is None:
            name = self._ref.member or "data: URL"
            raise RowError(error.code, f"{name}: {error.message}", param=self._ref.param, status=error.status) from None
