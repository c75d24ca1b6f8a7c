"""The service on a Ray of its own or on one that is there: started, and stopped."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import ray
from ray import serve

from lsi_ray.service.deploy import Deployment
from lsi_ray.service.ingress import build, first_token
from lsi_ray.service.names import APP, NAMESPACE, SERVICE
from lsi_ray.service.streams import stop_streams
from lsi_ray.stream.cluster import cluster


@dataclass(frozen=True, slots=True)
class Hosted:
    """`own`: the Ray is ours and ends with the block. `token`: the first one, if this made it."""

    own: bool
    token: str | None


@contextmanager
def hosting(deployment: Deployment, work: Path, host: str, port: int) -> Iterator[Hosted]:
    with cluster(streams=len(deployment.models)) as own:
        token = first_token(work)
        serve.start(
            http_options={"host": host, "port": port},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        serve.run(build(work, deployment), name=APP, route_prefix="/")
        yield Hosted(own, token)
        if own:
            serve.shutdown()


def stop() -> None:
    """End the service on the cluster that RAY_ADDRESS names, or on this machine's. What was accepted stays."""
    ray.init(address=os.environ.get("RAY_ADDRESS") or "auto", log_to_driver=False)
    serve.delete(APP)
    ray.kill(ray.get_actor(SERVICE, namespace=NAMESPACE))
    stop_streams()
