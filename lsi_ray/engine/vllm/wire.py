"""What travels, pickled, between the parts of the vLLM engine: Rendered to the engine, Generated to the finisher.

Pixels travel beside the pickle, and arrive as tensors over the memory they came in: nobody may write to them."""

from __future__ import annotations

import copyreg
import io
import pickle
import warnings
from dataclasses import dataclass
from typing import Any

import torch

from lsi_ray.engine import Payload
from lsi_ray.engine.parcel import Parcel

_SMALL = 16 * 2**10  # a buffer below this is cheaper inside the pickle


@dataclass(frozen=True, slots=True)
class Prompt:
    """One engine call. A completion or embedding row may hold several."""

    input: Any
    """vLLM's EngineInput: token ids, and for media the processed pixels, hashes and placeholder ranges."""
    params: Any
    """SamplingParams or PoolingParams."""
    options: dict[str, Any]
    """Keyword arguments of `AsyncLLM.generate` that belong to the row."""


@dataclass(frozen=True, slots=True)
class Rendered:
    url: str
    prompts: tuple[Prompt, ...]
    request: Any
    """What the finisher needs: the chat request when a parser reads the answer, an embedding's encoding_format."""


@dataclass(frozen=True, slots=True)
class Choice:
    index: int
    token_ids: list[int]
    text: str
    """Set only where the engine had to detokenise: rows with stop strings or logprobs."""
    finish_reason: str | None
    stop_reason: int | str | None
    logprobs: Any


@dataclass(frozen=True, slots=True)
class Output:
    """One prompt's outcome: choices of a generative model, or the `embedding` of a pooling model (float32, (D,))."""

    prompt_tokens: int
    prompt_tail: list[int]
    cached_tokens: int
    choices: tuple[Choice, ...] = ()
    embedding: Any = None


@dataclass(frozen=True, slots=True)
class Generated:
    url: str
    outputs: tuple[Output, ...]
    params: Any
    request: Any


def dumps(value: Any) -> Payload:
    file, large = io.BytesIO(), []

    def aside(buffer: pickle.PickleBuffer) -> bool:
        small = memoryview(buffer).nbytes < _SMALL
        if not small:
            large.append(buffer)
        return small

    _Pickler(file, protocol=5, buffer_callback=aside).dump(value)
    return Parcel(file.getvalue(), tuple(large)) if large else file.getvalue()


def loads(payload: Payload) -> Any:
    if isinstance(payload, Parcel):
        return pickle.loads(payload.head, buffers=payload.buffers)
    return pickle.loads(payload)


class _Pickler(pickle.Pickler):
    """Pickles a tensor as its own bytes. torch pickles the whole storage behind a view, and the images of one request
    are views of one storage: 8 images would travel 8 times each (measured: 2 images of 0.47 MB made 1.87 MB)."""

    dispatch_table = copyreg.dispatch_table.copy()


def _reduce_tensor(tensor: torch.Tensor) -> Any:
    flat = tensor.detach().contiguous().reshape(-1)
    return _rebuild_tensor, (pickle.PickleBuffer(flat.view(torch.uint8).numpy()), tensor.dtype, tuple(tensor.shape))


def _rebuild_tensor(data: Any, dtype: torch.dtype, shape: tuple[int, ...]) -> torch.Tensor:
    view = memoryview(data)
    if not view.nbytes:
        return torch.empty(shape, dtype=dtype)
    return torch.frombuffer(view, dtype=dtype).reshape(shape)


_Pickler.dispatch_table[torch.Tensor] = _reduce_tensor

with warnings.catch_warnings():
    # torch warns once per process of a tensor over memory that cannot be written. Ours cannot, and nobody writes to it.
    warnings.simplefilter("ignore")
    torch.frombuffer(b"0", dtype=torch.uint8)
