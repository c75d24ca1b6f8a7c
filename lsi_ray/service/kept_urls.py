"""The pre-signed URLs of batches that have ended, kept for a retry without new ones: a day, and no longer than signed.

One file per batch in `<work>/ended/`, open to its owner only. It holds the two URLs and nothing else of the user's; its
mtime is the moment at which it goes. It goes sooner when the batch is retried or archived.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

import msgspec

from lsi_ray.ledger.workdir import atomic_write, check_name, make_folder, sync_folder
from lsi_ray.service.private import Private
from lsi_ray.storage.secret_url import SecretUrl


class KeptUrls:
    def __init__(self, work: Path, keep_s: float, clock: Callable[[], float]) -> None:
        self._folder = work / "ended"
        make_folder(self._folder)
        self._keep_s = keep_s
        self._clock = clock
        self._unwanted: set[str] = set()
        self._mutex = threading.Lock()

    def put(self, batch_id: str, private: Private) -> None:
        """Durable on return; nothing when no URL is good any more, or the batch was retried already."""
        now = self._clock()
        urls = [url for url in (private.input_url, private.output_url) if url is not None and _ends(url) > now]
        until = min(now + self._keep_s, max(map(_ends, urls), default=now))
        record = {"input_url": _good(private.input_url, now), "output_url": _good(private.output_url, now)}
        with self._mutex:
            unwanted = batch_id in self._unwanted
            self._unwanted.discard(batch_id)
            if until > now and not unwanted:
                path = self._path(batch_id)
                atomic_write(path, msgspec.json.encode(record))
                os.utime(path, (until, until))

    def get(self, batch_id: str) -> Private:
        """Those that are still good."""
        path, now = self._path(batch_id), self._clock()
        try:
            until, record = path.stat().st_mtime, msgspec.json.decode(path.read_bytes())
        except FileNotFoundError:
            return Private()
        if until <= now:
            return Private()
        return Private(_still_good(record["input_url"], now), _still_good(record["output_url"], now))

    def forget(self, batch_id: str, *, to_come: bool = False) -> None:
        """`to_come`: the batch has just ended, and they may not have been put here yet."""
        with self._mutex:
            try:
                self._path(batch_id).unlink()
                sync_folder(self._folder)
            except FileNotFoundError:
                self._unwanted |= {batch_id} if to_come else set()

    def sweep(self) -> None:
        """Those whose time is over."""
        now = self._clock()
        for path in self._folder.iterdir():
            with suppress(FileNotFoundError):
                if path.stat().st_mtime <= now:
                    path.unlink()

    def _path(self, batch_id: str) -> Path:
        return self._folder / f"{check_name(batch_id)}.json"


def _ends(url: SecretUrl) -> float:
    return url.expires_at if url.expires_at is not None else float("inf")


def _still_good(text: str | None, now: float) -> SecretUrl | None:
    url = SecretUrl(text) if text is not None else None
    return url if url is not None and _ends(url) > now else None


def _good(url: SecretUrl | None, now: float) -> str | None:
    return url.reveal() if url is not None and _ends(url) > now else None
