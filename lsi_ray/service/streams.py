"""A model's stream in a detached actor of its own, and the supervisor's hold on them.

The actor outlives a restart of the service, so the engines stay loaded: its calls to the ledger wait for the new one,
and Ray repeats those that were lost (`start_service`: max_task_retries), which changes nothing (ledger.py).
"""

from __future__ import annotations

import logging
import threading
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError

from lsi_ray.config import Config
from lsi_ray.errors import LsiError
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.names import NAMESPACE, STREAM_PREFIX, stream_name
from lsi_ray.service.sizing import Gpus
from lsi_ray.service.supervisor import StreamEnd
from lsi_ray.stream.build import build_stream
from lsi_ray.stream.cluster import gpus_at_most, quiet
from lsi_ray.stream.ledger_actor import RemoteLedger, this_node
from lsi_ray.stream.logs import log_lines
from lsi_ray.stream.lost import SESSION_OVER
from lsi_ray.stream.ports import Replica, ReplicaState
from lsi_ray.stream.resize import Wanted

log = logging.getLogger(__name__)

_MESSAGE_CHARS = 500
_ADOPT_S = 10.0


class ModelLedger(RemoteLedger):
    """The ledger for the stages of one model, whose replicas it tells apart from the others'."""

    def __init__(self, actor: Any, model: str) -> None:
        super().__init__(actor)
        self._model = model

    def __reduce__(self) -> tuple[Any, ...]:
        return ModelLedger, (self._actor, self._model)

    def note_replica(self, name: str, state: ReplicaState, detail: str, engine: dict[str, str]) -> None:
        self.note_replica_of(self._model, name, state, detail, engine)

    def replicas(self) -> list[Replica]:
        found: list[Replica] = self.replicas_of(self._model)
        return found


class StreamDriver:
    """One execution of a model's stream, from `start` until its source has ended or it breaks."""

    def __init__(self, config: Config, work: Path, ledger: RemoteLedger, replicas: int) -> None:
        quiet()
        log_lines()
        self._config = config
        self._work = work
        self._ledger = ledger
        self._wanted = Wanted(replicas)
        self._ended = threading.Event()
        self._end = StreamEnd(config.model)

    def start(self) -> None:
        threading.Thread(target=self._run, name="stream", daemon=True).start()

    def resize(self, replicas: int) -> None:
        self._wanted.replicas = replicas

    def replicas(self) -> int:
        """That it was asked for last."""
        return self._wanted.replicas

    def wait(self) -> StreamEnd:
        self._ended.wait()
        return self._end

    def _run(self) -> None:
        model = self._config.model
        try:
            self._ledger.forget_replicas_of(model)
            session = self._ledger.open_session(model)
            stream = build_stream(self._config, self._work, self._ledger, session)
            self._wanted.follow(stream, self._config)
            for _ in stream.iter_internal_ref_bundles():
                pass
        except (RayError, LsiError) as error:
            log.warning("session of %s ended early: %s", model, error)
            if not _is_over(error):
                self._end = StreamEnd(model, _message(error))
        except Exception as error:  # it would end this thread unseen; the supervisor tells of it and starts anew
            self._end = StreamEnd(model, _message(error))
        self._ended.set()


class RayStreams:
    """`service`: the actor that holds the ledger."""

    def __init__(self, work: Path, deployment: Deployment, service: Any) -> None:
        self._work = work
        self._deployment = deployment
        self._service = service
        self._waits: dict[str, Any] = {}
        self._actors: dict[str, Any] = {}
        self._replicas: dict[str, int] = {}
        for model in deployment.models:
            self._adopt(model)

    def running(self) -> dict[str, int]:
        return dict(self._replicas)

    def start(self, model: str, replicas: int) -> None:
        served = self._deployment.models[model]
        driver = ray.remote(StreamDriver).options(
            name=stream_name(model),
            namespace=NAMESPACE,
            lifetime="detached",
            get_if_exists=True,
            num_cpus=0,
            max_concurrency=4,
            scheduling_strategy=this_node(),
        )
        ledger = ModelLedger(self._service, model)
        actor = driver.remote(served.config, self._work, ledger, replicas)
        actor.start.remote()
        self._hold(model, actor, replicas)

    def resize(self, model: str, replicas: int) -> None:
        self._actors[model].resize.remote(replicas)
        self._replicas[model] = replicas

    def ended(self) -> list[StreamEnd]:
        if not self._waits:
            return []
        ready, _ = ray.wait(list(self._waits.values()), num_returns=len(self._waits), timeout=0)
        return [self._take(model) for model, wait in list(self._waits.items()) if wait in ready]

    def gpus(self) -> Gpus:
        """Without an autoscaler's word, one that is not known of may still bring the GPUs of the first stream."""
        settings, there = self._deployment.settings.gpus, _gpus(ray.cluster_resources())
        grown = gpus_at_most()
        most = settings.most if settings.most is not None else max(there, grown or 0)
        if grown is None and settings.most is None:
            most = max([there, *(self._least_gpus(model) for model in self._deployment.models)])
        paid = settings.paid if settings.paid is not None else 0 if most > there else there
        return Gpus(min(paid, most), most)

    def short_of_gpus(self) -> frozenset[str]:
        """Models whose stream runs, and could not start one more engine now."""
        free = _gpus(ray.available_resources()) if self._waits else 0
        return frozenset(model for model in self._waits if self._deployment.config(model).engine.gpus > free)

    def stop(self) -> None:
        for actor in self._actors.values():
            ray.kill(actor)

    def _least_gpus(self, model: str) -> int:
        config = self._deployment.config(model)
        return config.engine.gpus * config.replicas.min

    def _adopt(self, model: str) -> None:
        """A stream that was running before the service's actor was restarted."""
        try:
            actor = ray.get_actor(stream_name(model), namespace=NAMESPACE)
            replicas = ray.get(actor.replicas.remote(), timeout=_ADOPT_S)
        except ValueError:
            return
        except (RayError, TimeoutError):  # it is ending, or of an older release
            replicas = self._deployment.config(model).replicas.min
        self._hold(model, actor, replicas)

    def _hold(self, model: str, actor: Any, replicas: int) -> None:
        self._actors[model] = actor
        self._replicas[model] = replicas
        self._waits[model] = actor.wait.remote()

    def _take(self, model: str) -> StreamEnd:
        wait, actor = self._waits.pop(model), self._actors.pop(model)
        del self._replicas[model]
        try:
            end: StreamEnd = ray.get(wait)
        except RayError as error:
            end = StreamEnd(model, f"its driver was lost: {_message(error)}")
        ray.kill(actor)
        return end


def _gpus(resources: dict[str, float]) -> int:
    return int(resources.get("GPU", 0))


def stop_streams() -> None:
    """All of them, on this cluster."""
    for actor in ray.util.list_named_actors(all_namespaces=True):
        if actor["namespace"] == NAMESPACE and actor["name"].startswith(STREAM_PREFIX):
            ray.kill(ray.get_actor(actor["name"], namespace=NAMESPACE))


def _is_over(error: BaseException) -> bool:
    """It had nothing left to do."""
    return any(getattr(cause, "code", None) == SESSION_OVER for cause in _causes(error))


def _message(error: BaseException) -> str:
    """What went wrong first."""
    root = _causes(error)[-1]
    return f"{type(root).__name__}: {root}"[:_MESSAGE_CHARS]


def _causes(error: BaseException) -> list[BaseException]:
    """From the outermost in. Ray keeps what a task raised in `cause`, Ray Data what a stage raised in `__cause__`."""
    chain = [error]
    while (inner := getattr(chain[-1], "cause", None) or chain[-1].__cause__) is not None and inner not in chain:
        chain.append(inner)
    return chain
