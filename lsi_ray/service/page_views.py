"""What the web page shows beyond the views of batches: frozen records that cross from the service to its page."""

from __future__ import annotations

from dataclasses import dataclass

from lsi_ray.archive.messages import Kind
from lsi_ray.stream.ports import ReplicaState


@dataclass(frozen=True, slots=True)
class SampleRow:
    """A finished row of a batch that is still here: what was asked and answered, as text, cut to a length for reading.

    `position` names the row for its thumbnails, one for each of `media`; None: validation refused the row, and what it
    asked is not read again."""

    row: int
    custom_id: str | None
    failed: bool
    question: str
    answer: str
    """Of a failed row: its error."""
    position: int | None = None
    media: tuple[Kind, ...] = ()


@dataclass(frozen=True, slots=True)
class NodeView:
    """A machine of the cluster that is there; nothing of it is an address."""

    cpus: float
    gpus: float
    memory_bytes: float
    accelerator: str | None = None


@dataclass(frozen=True, slots=True)
class ReplicaView:
    state: ReplicaState
    detail: str


@dataclass(frozen=True, slots=True)
class ModelLoad:
    """A model with its engines and what all callers together want of it."""

    id: str
    display_name: str
    replicas: tuple[ReplicaView, ...]
    validating: int
    running: int
    """Batches."""
    rows_waiting: int
    rows_out: int
    """Rows of running batches that no engine has yet, and that one has."""
    tokens_per_s: float | None = None
    """Of the last minute."""
    why: str = ""
    """Why no engine of it works."""

    @property
    def ready(self) -> int:
        return sum(replica.state == "ready" for replica in self.replicas)


@dataclass(frozen=True, slots=True)
class ClusterView:
    nodes: tuple[NodeView, ...]
    gpus_free: float
    models: tuple[ModelLoad, ...]
