"""What keeps callers apart in an engine's prefix cache.

A prefix that is cached answers measurably sooner, so in a shared cache one caller could guess another's prompts. Rows
carry a salt of their caller, which no other caller can know: HMAC-SHA256 under a key that stays in the work dir.
"""

from __future__ import annotations

import hmac
import secrets
from pathlib import Path

from lsi_ray.ledger.workdir import atomic_write


class CacheSalts:
    """`path`: the file of the key, made when it is first needed. One process at a time: the one that has the ledger."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._key: bytes | None = None

    def of(self, caller: str) -> str:
        """64 hexadecimal digits; empty without a caller, as in `lsi run`, whose engine is its own."""
        return hmac.new(self._read_key(), caller.encode(), "sha256").hexdigest() if caller else ""

    def _read_key(self) -> bytes:
        if self._key is None:
            if not self._path.exists():
                atomic_write(self._path, secrets.token_bytes(32))
            self._key = self._path.read_bytes()
        return self._key
