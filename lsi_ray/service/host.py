"""The service on a Ray of its own or on one that is there: started, and stopped.

Nothing here imports ray before `cluster` has set its environment: Ray reads which addresses to listen on, and Serve
what guards its port, when they are first imported. (The service listened on every address once, for one import.)
"""

from __future__ import annotations

import ipaddress
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from lsi_ray.errors import ConfigError, LsiError
from lsi_ray.service.deploy import Deployment
from lsi_ray.service.names import APP, NAMESPACE, SERVICE
from lsi_ray.stream.cluster import cluster

# By name: to import it here would take httptools and uvicorn into every `lsi serve`.
_GUARD = {"RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH": "lsi_ray.service.front_door.guard"}
_IDLE_S = 30
_PROBE_S = 10.0


@dataclass(frozen=True, slots=True)
class Hosted:
    """`own`: the Ray is ours and ends with the block. `token`: the first one, if this made it."""

    own: bool
    token: str | None


@contextmanager
def hosting(deployment: Deployment, work: Path, host: str, port: int) -> Iterator[Hosted]:
    for name, value in _GUARD.items():
        os.environ.setdefault(name, value)
    meet_on_loopback(os.environ.get("RAY_ADDRESS", ""))
    with cluster(streams=len(deployment.models), metrics=True) as own:
        from ray import serve

        from lsi_ray.service.ingress import build, first_token

        if not is_loopback(host):
            _check_auth(host)
        token = first_token(work)
        serve.start(
            http_options={"host": host, "port": port, "keep_alive_timeout_s": _IDLE_S},
            logging_config={"log_level": "WARNING", "enable_access_log": False},
        )
        serve.run(build(work, deployment), name=APP, route_prefix="/")
        yield Hosted(own, token)
        if own:
            serve.shutdown()


def stop(address: str) -> None:
    """End the service on the cluster at this address. What was accepted stays. LsiError `no_service`."""
    meet_on_loopback(address)
    with cluster(address):
        import ray
        from ray import serve

        from lsi_ray.service.streams import stop_streams

        try:
            service = ray.get_actor(SERVICE, namespace=NAMESPACE)
        except ValueError:
            raise LsiError("no_service", f"no service runs on the Ray at {address}") from None
        serve.delete(APP)
        ray.kill(service)
        stop_streams()


def meet_on_loopback(address: str) -> None:
    """Ray takes 127.0.0.1 for the machine's own address, where a head that keeps to the loopback does not listen, and
    tries for minutes; it is told so when there is nobody at that address."""
    host, _, port = address.rpartition(":")
    if not port.isdigit() or not is_loopback(host):
        return
    if _listens(host, int(port)) and not _listens(_own_address(), int(port)):
        os.environ.setdefault("RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER", "0")


def _listens(host: str, port: int) -> bool:
    try:
        socket.create_connection((host, port), timeout=2).close()
    except OSError:
        return False
    return True


def _own_address() -> str:
    """The one that others see; nothing is sent."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        try:
            probe.connect(("192.0.2.1", 9))
        except OSError:
            return "127.0.0.1"
        return str(probe.getsockname()[0])


def unguarded(host: str) -> str | None:
    """What to tell whoever opens a port on a Ray that is there: its nodes were started before us, so their environment
    decides what guards the port. All that can be seen of it from here is whether ours is the same."""
    joins = os.environ.get("RAY_ADDRESS", "local") not in ("", "local")
    missing = [f"{name}={value}" for name, value in _GUARD.items() if os.environ.get(name) != value]
    if not joins or is_loopback(host) or not missing:
        return None
    return f"warning: {host} has no guard against slow clients unless the nodes were started with {missing[0]}"


def is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _check_auth(host: str) -> None:
    """Raises ConfigError when the Ray we are on takes orders from anybody: asked as anybody would."""
    import ray

    address = ray.get_runtime_context().gcs_address
    if _is_open(address):
        message = "start its nodes with RAY_AUTH_MODE=token (it runs anybody's code without)"
        raise ConfigError(f"--host {host} is open to others, and the Ray at {address} asks for no token: {message}")


def _is_open(address: str) -> bool:
    """Whether Ray's head answers a call without a token. One behind TLS does not, nor one that is not there."""
    import grpc  # type: ignore[import-untyped]

    with grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)]) as channel:
        call = channel.unary_unary("/ray.rpc.NodeInfoGcsService/CheckAlive")
        try:
            call(b"", timeout=_PROBE_S)
        except grpc.RpcError:
            return False
        return True
