"""Notices a transfer that crawls: alive for every timeout, and yet never to end."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator

from lsi_ray.storage.transfer import TransferOptions


def paced(
    chunks: Iterable[bytes],
    options: TransferOptions,
    stalled: Callable[[str], Exception],
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[bytes]:
    """Hands the chunks on; raises `stalled(message)` when a window of waiting for them brought too few bytes.

    Only the time inside the source counts, not what the receiver does with a chunk.
    """
    waited, received = 0.0, 0
    source = iter(chunks)
    while True:
        begun = clock()
        chunk = next(source, None)
        waited += clock() - begun
        if chunk is None:
            return
        received += len(chunk)
        if waited >= options.slow_window_s:
            if received < options.slow_bytes_per_s * waited:
                raise stalled(f"only {received:,} bytes came in {waited:,.1f} s")
            waited, received = 0.0, 0
        yield chunk
