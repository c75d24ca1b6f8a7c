"""Asks a child to decode one file, and compares what it answers with what was asked."""

from __future__ import annotations

from lsi_ray.errors import RowError
from lsi_ray.media.child_process import ChildProcess
from lsi_ray.media.exchange import ChildDied, Done, Emptied, Filled, Fine, Job, Question, Refused, Report, Sample
from lsi_ray.media.image import Image
from lsi_ray.media.limits import DecoderLimits, MediaLimits
from lsi_ray.media.outline import Outline
from lsi_ray.media.sampling import Sampler, VideoInfo
from lsi_ray.media.video import Video, ask
from lsi_ray.media.watch import Watch
from lsi_ray.media.window import Frames, Inlet, Picture


class Decoder:
    """After any error but RowError the child is in an unknown state: `close`."""

    def __init__(self, limits: MediaLimits, bounds: DecoderLimits) -> None:
        self._limits = limits
        self._bounds = bounds
        self._child = ChildProcess(limits, bounds)

    @property
    def child(self) -> ChildProcess:
        return self._child

    def close(self) -> None:
        self._child.close()

    def image(self, data: bytes, outline: Outline) -> Image:
        """Raises RowError, ChildDied, ChildStuck."""
        watch = self._begin(Job("image", len(data)), data, self._image_seconds(data, outline))
        picture = Picture()
        inlet = Inlet(self._child.window, picture, 4 * self._limits.image_pixels)
        self._end(inlet, watch)
        return Image(picture.whole(inlet.bytes))

    def check_image(self, data: bytes, outline: Outline) -> None:
        """Raises RowError, ChildDied, ChildStuck."""
        watch = self._begin(Job("image", len(data), check=True), data, self._image_seconds(data, outline))
        if not isinstance(_unless_refused(self._child.report(watch)), Fine):
            raise ChildDied("it says what nobody asked")

    def video(self, data: bytes, sample: Sampler) -> Video:
        """Raises RowError, ChildDied, ChildStuck, and what `sample` raises."""
        watch = self._begin(Job("video", len(data)), data, self._bounds.video_cpu_seconds(len(data)))
        question = _unless_refused(self._child.report(watch))
        if not isinstance(question, Question):
            raise ChildDied("it says what nobody asked")
        wanted = self._ask(sample, question.info, watch)
        self._child.send(Sample(wanted))
        frames = Frames()
        inlet = Inlet(self._child.window, frames, 3 * self._limits.sampled_pixels)
        indices = self._end(inlet, watch)
        if sorted(set(indices) & set(wanted)) != indices:
            raise ChildDied("it gives frames that nobody asked for")
        return Video(frames.array(len(indices), inlet.bytes), tuple(indices), question.info)

    def _image_seconds(self, data: bytes, outline: Outline) -> float:
        return self._bounds.image_cpu_seconds(min(outline.pixels, self._limits.image_pixels), len(data))

    def _begin(self, job: Job, data: bytes, seconds: float) -> Watch:
        watch = Watch(self._child.pid, seconds, self._bounds)
        self._child.give(data)
        self._child.send(job)
        return watch

    def _end(self, inlet: Inlet, watch: Watch) -> list[int]:
        """Take pixels until the last ones are there."""
        while not isinstance(news := _unless_refused(self._child.report(watch)), Done):
            if not isinstance(news, Filled):
                raise ChildDied("it says what nobody asked")
            inlet.take(news)
            self._child.send(Emptied())
        inlet.take(news.last)
        return news.indices

    def _ask(self, sample: Sampler, info: VideoInfo, watch: Watch) -> list[int]:
        try:
            self._limits.check("video", info.total_frames, self._limits.video_frames, "frames")
            return ask(sample, info, self._limits)
        except RowError:
            self._child.send(Sample([]))
            self._child.report(watch)  # its refusal of a video of which nothing is sampled
            raise


def _unless_refused(news: Report) -> Report:
    if isinstance(news, Refused):
        raise RowError(news.code, news.message)
    return news
