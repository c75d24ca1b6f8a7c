"""What the web page asks of the service beyond the API: sign-ins, how a batch came along, the cluster at a glance."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

from lsi_ray.ledger.service_ledger import Accounts, ServiceLedger
from lsi_ray.ledger.service_records import Moment, SignIn, Token
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.backend import Caller
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.describe import ModelState
from lsi_ray.service.desk import Desk
from lsi_ray.service.models_state import Replicas
from lsi_ray.service.nodes import cluster_nodes
from lsi_ray.service.page_views import ClusterView, ModelLoad, NodeView, ReplicaView

_SAID_CHARS = 300


class PageDesk:
    """`model_state` tells of a model how it is. `look` is called every ten seconds, by one thread."""

    def __init__(
        self,
        ledger: ServiceLedger,
        accounts: Accounts,
        deployment: Deployment,
        *,
        desk: Desk,
        replicas: Replicas,
        model_state: Callable[[str], ModelState],
        clock: Callable[[], float],
        nodes: Callable[[], tuple[tuple[NodeView, ...], float]] = cluster_nodes,
    ) -> None:
        self._ledger = ledger
        self._accounts = accounts
        self._deployment = deployment
        self._desk = desk
        self._replicas = replicas
        self._model_state = model_state
        self._clock = clock
        self._read_nodes = nodes
        self._nodes: tuple[tuple[NodeView, ...], float] = ((), 0.0)

    def look(self) -> None:
        self._ledger.note_pace()
        self._nodes = self._read_nodes()

    def sign_in(self, text: str) -> SignIn | None:
        return self._accounts.sign_in(text, self._deployment.settings.api.sign_in_s)

    def signed_in(self, text: str) -> Token | None:
        return self._accounts.signed_in(text)

    def sign_out(self, text: str) -> None:
        self._accounts.sign_out(text)

    def pace(self, caller: Caller, batch_id: str) -> tuple[Moment, ...]:
        self._desk.get(caller, batch_id)
        return self._ledger.pace(batch_id)

    def cluster(self) -> ClusterView:
        batches = Counter((load.model, load.status) for load in self._ledger.loads())
        rows = self._ledger.rows_by_model()
        models = (self._load(model, batches, rows.get(model, (0, 0))) for model in self._deployment.models)
        nodes, gpus_free = self._nodes
        return ClusterView(nodes, gpus_free, tuple(models))

    def _load(self, model: str, batches: Counter[tuple[str, BatchStatus]], rows: tuple[int, int]) -> ModelLoad:
        state = self._model_state(model)
        speed = state.meter.recent(self._clock())
        running = batches[model, BatchStatus.IN_PROGRESS]
        return ModelLoad(
            id=model,
            display_name=self._deployment.models[model].settings.display_name or model,
            replicas=tuple(ReplicaView(one.state, one.detail[:_SAID_CHARS]) for one in self._replicas.of(model)),
            validating=batches[model, BatchStatus.VALIDATING],
            running=running,
            rows_waiting=rows[0],
            rows_out=rows[1],
            tokens_per_s=speed.tokens_per_s if speed is not None else None,
            why=state.waiting.message[:_SAID_CHARS] if state.waiting is not None and running else "",
        )
