"""What the ledger does not know, or gives to nobody else, in the API's words."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from lsi_ray.errors import LedgerError
from lsi_ray.service.backend import ServiceError

_UNKNOWN = ("no_such_batch", "no_such_file", "unsafe_name")


@contextmanager
def as_not_found(code: str = "not_found") -> Iterator[None]:
    """`code`: what an unknown thing is called here."""
    try:
        yield
    except LedgerError as error:
        if error.code not in _UNKNOWN:
            raise
        raise ServiceError(code, error.message) from error
