"""Leases of one session, one after another, for as long as there is work."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from itertools import count

from lsi_ray.ledger.records import Lease
from lsi_ray.stream.ports import StreamLedger

_SOON_S, _LATE_S = 0.05, 0.5
"""The ledger is asked again after half the time that has passed without work: a busy stream's source takes what comes
free at once, an idle stream costs the ledger two calls a second, and its next batch waits half a second at most."""


def leases(
    ledger: StreamLedger, session: int, max_outstanding_rows: int, *, sleep: Callable[[float], None] = time.sleep
) -> Iterator[Lease]:
    """Every lease of this session, until the model has no row left to answer.

    Each request has a number: an answer that is lost with the ledger's process is given again, not leased to nobody.
    """
    wait_s = _SOON_S
    for request in count(1):
        answer = ledger.lease(session, max_outstanding_rows, max_outstanding_rows, request=request)
        yield from answer.leases
        if answer.state == "idle":
            return
        if answer.leases:
            wait_s = _SOON_S
        else:
            sleep(wait_s)
            wait_s = min(1.5 * wait_s, _LATE_S)
