"""What may still be accepted: batches and rows of one caller, and work that ends within its window.

A batch is looked at three times: when it is submitted (against what is before it), when validation has counted its
work and no GPU time is spent yet (`weigh`), and when its window is made shorter. With `admission.refuse: false` what
does not fit is accepted with a warning.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from lsi_ray.errors import Finding
from lsi_ray.ledger.records import NewBatch
from lsi_ray.ledger.service_ledger import ServiceLedger
from lsi_ray.ledger.service_records import BatchSize, Load, Served
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.admission import Claim, admit, claim
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.deploy import AdmissionSettings
from lsi_ray.service.models_state import Work


class Capacity:
    """`most`: replicas that a model may grow to."""

    def __init__(
        self,
        ledger: ServiceLedger,
        settings: AdmissionSettings,
        at_hand: Work,
        clock: Callable[[], float],
        most: Callable[[str], int] = lambda _: 1,
    ) -> None:
        self._most = most
        self._ledger = ledger
        self._settings = settings
        self._at_hand = at_hand
        self._clock = clock
        self._weighing = threading.Lock()

    def submission(self, new: NewBatch) -> tuple[str, ...]:
        """Warnings for the batch. Raises ServiceError `too_many_batches`, `no_capacity`."""
        most = self._settings.max_batches_per_caller
        if self._ledger.count_alive(new.caller) >= most:
            raise ServiceError("too_many_batches", f"{most} batches of yours have not ended yet")
        if not new.model:
            return ()
        return self._check(new.model, Claim.of(new.batch_id, 0.0, new.deadline, new.priority, self._clock()))

    def window(self, served: Served, deadline: float) -> tuple[str, ...]:
        """The same for another window of a batch; a longer one is always fine. Raises ServiceError `no_capacity`."""
        batch = served.batch
        at_work = batch.status in (BatchStatus.VALIDATING, BatchStatus.IN_PROGRESS)
        if not at_work or not batch.model or (batch.deadline is not None and deadline >= batch.deadline):
            return ()
        now = self._clock()
        one = claim(Load.of(served), self._at_hand.meter(batch.model), now).due(deadline, now)
        return self._check(batch.model, one, since=batch.created_at)

    def weigh(self, batch_id: str, size: BatchSize) -> Finding | None:
        """Why a batch of this size does not run. One after another: what is accepted here counts for the next."""
        with self._weighing:
            self._ledger.set_size(batch_id, size)
            load = Load.of(self._ledger.served(batch_id))
            try:
                self._check_rows(load)
                one = claim(load, self._at_hand.meter(load.model), self._clock())
                for warning in self._check(load.model, one):
                    self._ledger.warn(batch_id, warning)
            except ServiceError as error:
                self._ledger.set_size(batch_id, BatchSize())  # it takes no room from the next
                return Finding(error.code, error.message, param=error.param)
        return None

    def _check(self, model: str, one: Claim, *, since: float | None = None) -> tuple[str, ...]:
        others, meter = self._at_hand.claims(model, fresh=True), self._at_hand.meter(model)
        how = {"safety": self._settings.safety, "now": self._clock()}
        try:
            admit(one, others, meter, **how, since=since, replicas=self._most(model))
        except ServiceError as error:
            if self._settings.refuse:
                raise
            return (error.message,)
        return ()

    def _check_rows(self, load: Load) -> None:
        others = [one for one in self._ledger.loads() if one.caller == load.caller and one.batch_id != load.batch_id]
        open_rows = sum(max(one.total, one.size.rows) - one.completed - one.failed for one in others)
        most = self._settings.max_rows_per_caller
        if open_rows + load.size.rows > most:
            message = (
                f"it has {load.size.rows:,} rows, and {open_rows:,} of yours are to be answered already: "
                f"at most {most:,} at a time"
            )
            raise ServiceError("too_many_rows", message)
