"""What of a batch only its worker may see: pre-signed URLs and the webhook's secret.

They lie in one file of the batch's folder, open to the owner only, never in the ledger (whose rows leave traces in
pages and journals), and go with the folder when the batch ends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path

import msgspec
from pydantic import SecretStr

from lsi_ray.errors import LedgerError
from lsi_ray.ledger.workdir import BatchDir, atomic_write
from lsi_ray.service.backend import Webhook
from lsi_ray.storage.location import Location
from lsi_ray.storage.secret_url import SecretUrl


@dataclass(frozen=True, slots=True)
class Private:
    """`only`: the rows of the input that run (a retry of failed rows); None: all."""

    input_url: SecretUrl | None = None
    output_url: SecretUrl | None = None
    webhook: Webhook | None = None
    only: tuple[int, ...] | None = None

    def save(self, folder: BatchDir) -> None:
        record = {
            "input_url": _reveal(self.input_url),
            "output_url": _reveal(self.output_url),
            "webhook_url": _reveal(self.webhook.url) if self.webhook else None,
            "webhook_secret": self.webhook.secret.get_secret_value() if self.webhook else None,
            "only": self.only,
        }
        atomic_write(_path(folder), msgspec.json.encode(record))

    @classmethod
    def load(cls, folder: BatchDir) -> Private:
        """LedgerError `no_such_batch` when the batch has ended and its URLs are gone."""
        try:
            record = msgspec.json.decode(_path(folder).read_bytes())
        except FileNotFoundError:
            raise LedgerError("no_such_batch", f"nothing is kept of {folder.path.name} any more") from None
        webhook = None
        if record["webhook_url"]:
            webhook = Webhook(SecretUrl(record["webhook_url"]), SecretStr(record["webhook_secret"]))
        only = tuple(record["only"]) if record["only"] is not None else None
        return cls(_hide(record["input_url"]), _hide(record["output_url"]), webhook, only)

    def with_urls(self, input_url: SecretUrl | None, output_url: SecretUrl | None) -> Private:
        """None leaves one as it is."""
        return replace(self, input_url=input_url or self.input_url, output_url=output_url or self.output_url)

    def source(self, folder: BatchDir) -> Location:
        """Where the input is: its URL, or the uploaded file."""
        return Location.parse(self.input_url.reveal()) if self.input_url else Location.local(upload_path(folder))

    def target(self) -> Location | None:
        """None: the output becomes files."""
        return Location.parse(self.output_url.reveal()) if self.output_url else None


def upload_path(folder: BatchDir) -> Path:
    """The uploaded input, a hard link: deleting the file of the Files API does not take it from a running batch."""
    return folder.path / "upload"


def _path(folder: BatchDir) -> Path:
    return folder.path / "private.json"


def _reveal(url: SecretUrl | None) -> str | None:
    return url.reveal() if url is not None else None


def _hide(text: str | None) -> SecretUrl | None:
    return SecretUrl(text) if text is not None else None
