"""What the service tells Prometheus, through Ray's metrics. docs/service.md has the table; a test holds both together.

Those of the stages are in stream/stage_metrics.py.
"""

from __future__ import annotations

from collections import Counter as Tally
from collections.abc import Iterable, Mapping
from itertools import pairwise

from ray.util.metrics import Counter, Gauge, Histogram

from lsi_ray.ledger.records import Answers, Batch, CommitResult

_STAGE_S = [1, 5, 15, 60, 300, 900, 3600, 14_400, 86_400, 604_800]
_COMMIT_S = [0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.5]


class Metrics:
    def __init__(self) -> None:
        self._rows = Counter("lsi_rows_total", "Rows committed.", ("model", "result"))
        self._tokens = Counter("lsi_tokens_total", "Tokens of committed rows.", ("model", "kind"))
        self._media = Counter("lsi_media_failures_total", "Rows that failed for their media.", ("model", "code"))
        self._batches = Gauge("lsi_batches", "Batches by status.", ("model", "status"))
        self._waiting = Gauge("lsi_rows_waiting", "Rows of running batches not yet leased.", ("model",))
        self._out = Gauge("lsi_rows_out", "Rows leased and not yet answered.", ("model",))
        self._replicas = Gauge("lsi_replicas", "Engine replicas.", ("model", "state"))
        self._batch = Histogram("lsi_batch_seconds", "Stages of batches.", _STAGE_S, ("model", "stage"))
        self._commit = Histogram("lsi_commit_seconds", "Commits in the ledger.", _COMMIT_S, ("model",))
        self._failures = Counter("lsi_stream_failures_total", "Streams that ended early.", ("model",))
        self._states: set[tuple[str, str]] = set()

    def committed(self, model: str, answers: Answers, result: CommitResult, seconds: float) -> None:
        """Rows that the ledger had before are in no count; that is rare, and then a whole segment mostly."""
        self._commit.observe(seconds, {"model": model})
        if not result.accepted:
            return
        failures = Tally(note.code for note in answers.errors)
        for code, rows in failures.items():
            self._rows.inc(rows, {"model": model, "result": code})
            if code.startswith(("media_", "image_", "video_")):
                self._media.inc(rows, {"model": model, "code": code})
        if good := result.accepted - sum(failures.values()):
            self._rows.inc(max(good, 0), {"model": model, "result": "completed"})
        sums = {
            "prompt": answers.prompt_tokens,
            "completion": answers.completion_tokens,
            "cached": answers.cached_tokens,
        }
        for kind, tokens in sums.items():
            if total := sum(tokens):
                self._tokens.inc(total, {"model": model, "kind": kind})

    def ended(self, batch: Batch) -> None:
        for (stage, begun), (_, over) in pairwise(sorted(batch.times.items(), key=lambda entry: entry[1])):
            self._batch.observe(max(over - begun, 0.0), {"model": batch.model, "stage": stage})

    def stream_failed(self, model: str) -> None:
        self._failures.inc(1, {"model": model})

    def now(
        self,
        batches: Mapping[tuple[str, str], int],
        rows: Mapping[str, tuple[int, int]],
        replicas: Iterable[tuple[str, str, int]],
    ) -> None:
        """`batches`: by model and status; `rows`: by model, waiting and out; `replicas`: model, state, number."""
        for gone in self._states - batches.keys():
            self._batches.set(0, dict(zip(("model", "status"), gone, strict=True)))
        self._states = set(batches)
        for (model, status), number in batches.items():
            self._batches.set(number, {"model": model, "status": status})
        for model, (waiting, out) in rows.items():
            self._waiting.set(waiting, {"model": model})
            self._out.set(out, {"model": model})
        for model, state, number in replicas:
            self._replicas.set(number, {"model": model, "state": state})
