"""Pre-signed URLs of s3://bucket/key, with the person's own credentials, region and endpoint of the usual settings."""

from __future__ import annotations

from typing import Literal

from lsi_ray.errors import StorageError
from lsi_ray.storage.redact import redact
from lsi_ray.storage.secret_url import SecretUrl

LONGEST_S = 7 * 86_400
"""SigV4's own limit."""


def presign(url: SecretUrl, method: Literal["GET", "PUT"], seconds: float) -> SecretUrl:
    """Raises StorageError `input_forbidden` or `output_forbidden` without credentials."""
    import s3fs
    from botocore.exceptions import BotoCoreError

    operation, side = {"GET": ("get_object", "input"), "PUT": ("put_object", "output")}[method]
    filesystem = s3fs.S3FileSystem(config_kwargs={"signature_version": "s3v4"}, skip_instance_cache=True)
    try:
        text = filesystem.url(url.reveal(), expires=int(min(seconds, LONGEST_S)), client_method=operation)
    except BotoCoreError as error:
        raise StorageError(f"{side}_forbidden", f"{url}: {redact(str(error))}") from None
    return SecretUrl(text)
