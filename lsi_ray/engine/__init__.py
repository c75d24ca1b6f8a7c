"""The engine boundary: a Renderer, an Engine and a Finisher, and the one function that chooses them.

A row crosses two process borders, so each step hands on an opaque payload that only the next step of the same engine
reads: `render` (CPU) -> rendered -> `generate` (GPU) -> generated -> `finish` (CPU) -> Answer.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from lsi_ray.archive.rows import MediaRef, Request
from lsi_ray.config import Config, VllmEngine
from lsi_ray.engine.parcel import Parcel

ReadMedia = Callable[[MediaRef], bytes]
"""Bytes of one media part: a ranged read of the archive, or the data of a `data:` URL."""

Payload = bytes | Parcel
"""What a step hands on. A parcel where there are pixels: 4 MB an image, which as bytes were copied six times on their
way (of 28 ms of CPU to render a JPEG of 832 x 832, 15 were copies)."""


@dataclass(frozen=True, slots=True)
class Answer:
    body: bytes
    """An OpenAI response object as JSON (`chat.completion`, `text_completion`, `list` of embeddings)."""
    prompt_tokens: int
    completion_tokens: int
    cached_tokens: int


class Renderer(Protocol):
    async def render(self, request: Request, read_media: ReadMedia, caller: str = "") -> Payload:
        """Everything before the model: media, chat template, tokens. Raises RowError. `caller`: any name that tells
        callers apart; each has a budget of its own for what is slow to prepare."""
        ...


class Engine(Protocol):
    async def start(self) -> None:
        """Load the model. Raises EngineError when it cannot."""
        ...

    async def generate(self, rendered: Payload, request_id: str, rank: int, cache_salt: str) -> Payload:
        """Run the model. Of the rows that wait inside, the smallest `rank` is next, and among equals the first that
        came; a running row is never interrupted for another. Rows share cached prefixes only with rows of the same
        `cache_salt`. Raises RowError for this row alone, EngineError when the
        engine is gone."""
        ...

    async def ping(self) -> None:
        """Returns when the engine's own loop has turned once more, which a hung one's never does. Raises EngineError
        when the engine is gone."""
        ...

    async def kill(self) -> None:
        """End the engine for good, hung and stopped processes included, and what is still in it; it may be dead or
        half started. When this returns its memory is free."""
        ...

    def describe(self) -> dict[str, str]:
        """Name, version and device for the manifest."""
        ...


class Finisher(Protocol):
    def finish(self, generated: Payload, request_id: str) -> Answer:
        """Everything after the model: text, tool calls, the OpenAI body. Raises RowError."""
        ...


def make_renderer(config: Config) -> Renderer:
    if isinstance(config.engine, VllmEngine):
        from lsi_ray.engine.vllm.renderer import VllmRenderer

        return VllmRenderer(config.engine, config.model, config.render.media_cache_bytes)
    from lsi_ray.engine.simulated import SimulatedRenderer

    return SimulatedRenderer(config.engine, config.model)


def make_engine(config: Config) -> Engine:
    if isinstance(config.engine, VllmEngine):
        from lsi_ray.engine.vllm.engine import VllmReplica

        return VllmReplica(config.engine)
    from lsi_ray.engine.simulated import SimulatedReplica

    return SimulatedReplica(config.engine)


def make_finisher(config: Config) -> Finisher:
    if isinstance(config.engine, VllmEngine):
        from lsi_ray.engine.vllm.finisher import VllmFinisher

        return VllmFinisher(config.engine, config.model)
    from lsi_ray.engine.simulated import SimulatedFinisher

    return SimulatedFinisher(config.model)
