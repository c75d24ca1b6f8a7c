"""Objects of s3://bucket/key through s3fs, with the credentials, region and endpoint of the usual AWS settings.

s3fs and botocore have retries of their own; they are switched off here, because a fault is retried in one loop. s3fs
takes 0.6 s to import, so it is imported on first use.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, partial
from pathlib import Path
from typing import Any

from lsi_ray.errors import StorageError
from lsi_ray.storage.redact import redact
from lsi_ray.storage.retry import RetryLoop, TransientError
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import Fetched, Side, Stat, TransferOptions, Uploaded

# One ranged GET, or one part of an upload; a repeated GET costs at most this much again.
_PIECE = 8 << 20
# s3fs's own sizes took 950 MB of memory for an upload of 1 GB; these took 45 MB and were faster (212 to 114 MB/s).
_PARTS_AT_ONCE = 4


def fetch_s3(
    url: SecretUrl,
    sink: Callable[[bytes], object],
    *,
    max_bytes: int | None,
    version: str | None,
    options: TransferOptions,
) -> Fetched:
    loop = RetryLoop(options.retry, options.on_retry)
    found = stat_s3(url, options)
    assert found.size is not None
    if version is not None and found.version != version:
        raise StorageError("input_changed", f"{url} has changed")
    if max_bytes is not None and found.size > max_bytes:
        raise StorageError("input_too_large", f"{url}: {found.size:,} bytes; at most {max_bytes:,} are accepted")
    digest = hashlib.sha256()
    for start in range(0, found.size, _PIECE):
        end = min(start + _PIECE, found.size)
        piece = loop.call(partial(_piece, url, start, end))
        loop.progressed()
        digest.update(piece)
        sink(piece)
    if stat_s3(url, options) != found:
        raise StorageError("input_changed", f"{url} has changed while it was being read")
    return Fetched(found.size, digest.hexdigest(), found.version)


def stat_s3(url: SecretUrl, options: TransferOptions) -> Stat:
    def attempt() -> Stat:
        with _named("input", url):
            # `refresh`: s3fs answers from a listing that it read before, otherwise.
            info = _filesystem().info(url.reveal(), refresh=True)
        if info["type"] != "file":
            raise StorageError("input_not_found", f"{url} is not an object")
        return Stat(int(info["size"]), str(info.get("ETag") or info.get("LastModified")))

    return RetryLoop(options.retry, options.on_retry).call(attempt)


def upload_s3(source: Path, url: SecretUrl, options: TransferOptions) -> Uploaded:
    """In parts where the file is large; the object appears whole, when the last part is there."""

    def attempt() -> None:
        with _named("output", url):
            _filesystem().put_file(str(source), url.reveal(), chunksize=_PIECE, max_concurrency=_PARTS_AT_ONCE)

    RetryLoop(options.retry, options.on_retry).call(attempt)
    return Uploaded(source.stat().st_size, None)


def _piece(url: SecretUrl, start: int, end: int) -> bytes:
    with _named("input", url):
        piece: bytes = _filesystem().cat_file(url.reveal(), start=start, end=end)
    if len(piece) != end - start:
        raise TransientError("input_unavailable", f"{url}: asked for {end - start} bytes, got {len(piece)}")
    return piece


@cache
def _filesystem() -> Any:
    import s3fs

    # S3's likes do not all know the newer checksums: rclone answers a range with the checksum of the whole object.
    checksums = {"request_checksum_calculation": "when_required", "response_checksum_validation": "when_required"}
    config = {"retries": {"max_attempts": 0}, "connect_timeout": 15, "read_timeout": 60, **checksums}
    filesystem = s3fs.S3FileSystem(config_kwargs=config, use_listings_cache=False, skip_instance_cache=True)
    filesystem.retries = 1
    return filesystem


@contextmanager
def _named(side: Side, url: SecretUrl) -> Iterator[None]:
    """What s3fs, botocore and aiohttp raise, under our codes."""
    import aiohttp
    from botocore import exceptions as boto

    try:
        yield
    except FileNotFoundError:
        raise StorageError(f"{side}_not_found", f"{url}: no such bucket or object") from None
    except PermissionError as error:
        raise StorageError(f"{side}_forbidden", f"{url}: {redact(str(error))}") from None
    except (boto.NoCredentialsError, boto.PartialCredentialsError, boto.ProfileNotFound) as error:
        raise StorageError(f"{side}_forbidden", f"{url}: {redact(str(error))}") from None
    except (boto.HTTPClientError, boto.ConnectionError, aiohttp.ClientError, TimeoutError, OSError) as error:
        said = f"{url}: {type(error).__name__}: {redact(str(error))}"
        raise TransientError(f"{side}_unavailable", said) from None
    except (boto.BotoCoreError, boto.ClientError, ValueError) as error:
        raise StorageError(f"{side}_rejected", f"{url}: {redact(str(error))}") from None
