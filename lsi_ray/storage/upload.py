"""Write a finished file to its place, whole or not at all.

A repetition sends the same bytes to the same name, so it is safe also when the first one had succeeded and only its
answer was lost. Errors: StorageError with a code of output_forbidden, output_url_expired, output_too_large,
output_not_found, output_rejected, output_untrusted, invalid_url, destination_not_allowed; or output_unavailable,
transient, when retries did not help.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from lsi_ray.storage.http_exchange import Exchange
from lsi_ray.storage.local_files import upload_local
from lsi_ray.storage.location import Location
from lsi_ray.storage.retry import RetryLoop
from lsi_ray.storage.s3 import upload_s3
from lsi_ray.storage.secret_url import SecretUrl
from lsi_ray.storage.transfer import CHUNK, DEFAULT_OPTIONS, GB, TransferOptions, Uploaded

# S3's limit for one PUT. Google and Azure take more, but say 5 GB for the portable case.
MAX_PUT = 5 * GB


def upload(
    path: Path, location: Location, *, max_put_bytes: int = MAX_PUT, options: TransferOptions = DEFAULT_OPTIONS
) -> Uploaded:
    """`max_put_bytes` bounds http(s) only: s3:// is written in parts."""
    if location.path is not None:
        return upload_local(path, location.path)
    assert location.url is not None
    if location.kind == "s3":
        return upload_s3(path, location.url, options)
    return _put(path, location.url, max_put_bytes, options)


def _put(path: Path, url: SecretUrl, max_put_bytes: int, options: TransferOptions) -> Uploaded:
    size = path.stat().st_size

    def attempt() -> Uploaded:
        with path.open("rb") as file, exchange.send("PUT", headers, _chunks(file)) as response:
            return Uploaded(size, response.headers.get("ETag"))

    with Exchange(url, "output", options) as exchange:
        if size > max_put_bytes:
            raise exchange.error("too_large", f"{size:,} bytes; one PUT may hold {max_put_bytes:,}")
        headers = _headers(url, size)
        return RetryLoop(options.retry, options.on_retry).call(attempt)


def _headers(url: SecretUrl, size: int) -> dict[str, str]:
    """No Content-Type: a signature may cover it, and then a value that the signer did not name is refused."""
    azure = ".blob.core.windows.net/" in str(url).lower()
    return {"Content-Length": str(size), **({"x-ms-blob-type": "BlockBlob"} if azure else {})}


def _chunks(file: BinaryIO) -> Iterator[bytes]:
    while chunk := file.read(CHUNK):
        yield chunk
