"""Backpressure for uploads through Ray Serve, which has none: its proxy reads as fast as a client sends, and its
replica as fast as the proxy. A file of 1 GB took 1.2 GB of the one and 1.5 GB of the other, however fast the disk was.

Both queues are classes in Serve's modules; here are ones that wait while they are full. Where a Ray has others, nothing
is changed, and said in the log.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any

log = logging.getLogger(__name__)

_MESSAGES = 32
"""Of at most 320 KB (uvicorn stops reading at 64 KB, with one read of 256 KB more)."""
_LOOK_S = 0.005


def bound_proxy() -> None:
    """In a proxy: pieces of a body that the replica has not fetched."""
    from ray.serve._private import proxy

    if (queue := getattr(proxy, "MessageQueue", None)) is None:
        log.warning("this Ray Serve has another proxy: uploads may fill its memory")
        return

    class Bounded(queue):  # type: ignore[misc, valid-type]
        async def __call__(self, message: Any) -> None:
            while len(self._message_queue) >= _MESSAGES and not self._closed:
                await asyncio.sleep(_LOOK_S)
            await super().__call__(message)

    proxy.MessageQueue = Bounded


def bound_replica() -> None:
    """In a replica: pieces of a body that the application has not taken."""
    from ray.serve._private import replica

    if (receive := getattr(replica, "ASGIReceiveProxy", None)) is None:
        log.warning("this Ray Serve has another replica: uploads may fill its memory")
        return

    class Bounded(receive):  # type: ignore[misc, valid-type]
        def __init__(self, scope: Any, metadata: Any, fetch: Callable[[Any], Awaitable[bytes]]) -> None:
            async def fetch_when_wanted(metadata: Any) -> bytes:
                while self.queue.qsize() >= _MESSAGES:
                    await asyncio.sleep(_LOOK_S)
                return await fetch(metadata)

            super().__init__(scope, metadata, fetch_when_wanted)

    replica.ASGIReceiveProxy = Bounded
