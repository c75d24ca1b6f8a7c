"""Read an input once, in order, from wherever it lies.

    fetch   every byte to a sink, exactly once, with the digest and the version of what was read
    stat    size and version now, to notice later that an input has changed

Errors: StorageError with a code of input_not_found, input_forbidden, input_url_expired, input_changed, input_too_large,
input_rejected, input_untrusted, invalid_url, destination_not_allowed; or input_unavailable, transient, when retries did
not help.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import BinaryIO

from lsi_ray.storage.http_download import fetch_http, stat_http
from lsi_ray.storage.local_files import fetch_local, stat_local
from lsi_ray.storage.location import Location
from lsi_ray.storage.s3 import fetch_s3, stat_s3
from lsi_ray.storage.transfer import DEFAULT_OPTIONS, Fetched, Stat, TransferOptions


def fetch(
    location: Location,
    sink: Callable[[bytes], object] | BinaryIO,
    *,
    max_bytes: int | None = None,
    version: str | None = None,
    options: TransferOptions = DEFAULT_OPTIONS,
) -> Fetched:
    """With `version`, as an earlier `stat` gave it, another version is refused as `input_changed`.

    What the sink raises ends the transfer and passes through as it is.
    """
    write = sink if callable(sink) else sink.write
    if location.path is not None:
        return fetch_local(location.path, write, max_bytes=max_bytes, version=version)
    assert location.url is not None
    remote = fetch_s3 if location.kind == "s3" else fetch_http
    return remote(location.url, write, max_bytes=max_bytes, version=version, options=options)


def stat(location: Location, *, options: TransferOptions = DEFAULT_OPTIONS) -> Stat:
    if location.path is not None:
        return stat_local(location.path)
    assert location.url is not None
    return stat_s3(location.url, options) if location.kind == "s3" else stat_http(location.url, options)
