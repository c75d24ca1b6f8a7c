"""The Ray Serve application: replicas of the HTTP API over the service's actor.

`serve deploy configs/serve.yaml` builds it by `app`, with the path of a deployment and a work dir as its arguments;
`lsi serve` does the same from the command line.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import ray
from fastapi import FastAPI
from ray import serve
from ray.serve import Application

from lsi_ray.config import cache_folder
from lsi_ray.ledger.service_ledger import Accounts
from lsi_ray.ledger.workdir import WorkDir
from lsi_ray.service.actor import start_service
from lsi_ray.service.api.app import create_app
from lsi_ray.service.backpressure import bound_replica
from lsi_ray.service.deploy import Deployment, load_deployment
from lsi_ray.service.names import NAMESPACE, SERVICE
from lsi_ray.service.ray_backend import RayBackend


def build(work: Path, deployment: Deployment) -> Application:
    """Starts the service's actor unless it is there; the replicas run on this node, where the work dir is."""
    start_service(work, deployment)

    def api() -> FastAPI:
        keep_to_loopback()
        bound_replica()
        actor = ray.get_actor(SERVICE, namespace=NAMESPACE)
        return create_app(RayBackend(actor, work, deployment), deployment.settings.api)

    options: dict[str, Any] = {"num_cpus": 0, "resources": {node_resource(): 0.001}}
    deployed = serve.deployment(
        name="api",
        num_replicas=deployment.settings.api_replicas,
        max_ongoing_requests=1000,
        ray_actor_options=options,
        health_check_period_s=5,
    )(serve.ingress(api)(Ingress))
    return deployed.bind()


class Ingress:
    """The replica; FastAPI does the rest."""


def keep_to_loopback() -> None:
    """Serve opens a port in each replica for calls of other deployments, of which there are none, on every address; it
    takes pickles from whoever has Ray's token. On a Ray of this machine alone it keeps to the machine, as all the rest.
    """
    from ray.serve._private import replica

    add = getattr(replica, "add_port_to_grpc_server", None)
    if add is not None and os.environ.get("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER") == "0":
        replica.add_port_to_grpc_server = lambda server, address: add(server, address.replace("[::]", "127.0.0.1"))


def node_resource() -> str:
    """The resource that only this node has."""
    address = ray.util.get_node_ip_address()
    return f"node:{address}"


def app(args: dict[str, str]) -> Application:
    """For Ray Serve's own config file. `deploy`: a YAML; `work_dir`: default `LSI_WORK_DIR`, else in the cache folder.

    A service without a token writes a first one to `<work_dir>/first-token`, open to its owner only.
    """
    work = Path(args.get("work_dir") or os.environ.get("LSI_WORK_DIR") or default_work_dir()).absolute()
    deployment = load_deployment(Path(args["deploy"]) if args.get("deploy") else None)
    text = first_token(work)
    if text is not None:
        descriptor = os.open(work / "first-token", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w") as file:
            file.write(text + "\n")
    return build(work, deployment)


def default_work_dir() -> Path:
    return cache_folder() / "service"


def first_token(work: Path) -> str | None:
    """A token for a service that has none, told this once."""
    accounts = Accounts(WorkDir(work).create().ledger)
    try:
        return None if accounts.list() else accounts.create("operator", name="first token")[1]
    finally:
        accounts.close()
