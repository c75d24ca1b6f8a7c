"""A payload with large parts: a pickled head, and beside it the buffers that no pickle copies (PEP 574)."""

from __future__ import annotations

import pickle
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, slots=True)
class Parcel:
    """Who pickles it with a `buffer_callback` gets the buffers as they are; else they are copied into the pickle."""

    head: bytes
    buffers: tuple[Any, ...]

    def __len__(self) -> int:
        """Bytes, of head and buffers."""
        return len(self.head) + sum(memoryview(one).nbytes for one in self.buffers)

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        if protocol < 5:
            return _parcel, (self.head, [bytes(memoryview(one)) for one in self.buffers])
        return _parcel, (self.head, [pickle.PickleBuffer(one) for one in self.buffers])


def _parcel(head: bytes, buffers: Iterable[Any]) -> Parcel:
    return Parcel(head, tuple(buffers))
