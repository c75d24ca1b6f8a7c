"""Leases of one session, one after another, for as long as there is work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

from lsi_ray.ledger.records import Lease
from lsi_ray.stream.ports import StreamLedger

_POLL_S = 0.1


def leases(
    ledger: StreamLedger, session: int, max_outstanding_rows: int, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Lease]:
    """Every lease of this session, until the model has no row left to answer."""
    while True:
        answer = ledger.lease(session, max_outstanding_rows, max_outstanding_rows)
        yield from answer.leases
        if answer.state == "idle":
            return
        if not answer.leases:
            sleep(_POLL_S)
