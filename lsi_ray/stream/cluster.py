"""Ray for a driver: the cluster that RAY_ADDRESS names (a job of `ray job submit` has it set), else one of our own."""

from __future__ import annotations

import logging
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lsi_ray.errors import ConfigError, LsiError

# Ray starts workers at nice 15, and what they start inherits it: on a shared machine the engine would lose the CPU to
# everything else. Auto-connect is read when Ray is first imported: after Ctrl-C, a thread of the stream that still ran
# started a second Ray.
_ENVIRONMENT = {
    "RAY_ENABLE_AUTO_CONNECT": "0",
    "RAY_worker_niceness": "0",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DATA_DISABLE_PROGRESS_BARS": "1",
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}

# Read when Ray is first imported. A Ray of one machine then listens on loopback alone: by default its raylet, GCS and
# agents listen on every address, and `_node_ip_address="127.0.0.1"` is turned into the machine's own.
_LOOPBACK = {"RAY_ENABLE_WINDOWS_OR_OSX_CLUSTER": "0"}


# Nobody reads the metrics of a Ray that lives for one command. Collecting them cost a quarter of what an idle Ray of 12
# processes takes: 0.063 of a core with, 0.048 without.
_NO_METRICS = {"RAY_enable_metrics_collection": "0"}


def quiet() -> None:
    """Ray Data's plans and warnings, in a process that drives a stream: they are not for our users."""
    logging.getLogger("ray.data").setLevel(logging.ERROR)


@contextmanager
def cluster(address: str | None = None, *, streams: int = 1, metrics: bool = False) -> Iterator[bool]:
    """Join or start Ray; yields whether it is our own. Our own one ends with the block. `streams`: to run at once.
    `metrics`: our own one collects them."""
    address = address or os.environ.get("RAY_ADDRESS") or "local"
    own = address == "local"
    ours = _LOOPBACK | ({} if metrics else _NO_METRICS)
    for name, value in (_ENVIRONMENT | (ours if own else {})).items():
        os.environ.setdefault(name, value)
    import ray

    quiet()
    if own:
        # A worker per stage has to fit even where there is one core: CPUs are logical, the machine shares them out.
        cpus = max(os.cpu_count() or 1, 1 + streams)
        ray.init(
            address="local",
            num_cpus=cpus,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    else:
        _join(address)
    try:
        yield own
    finally:
        ray.shutdown()


def check_gpus(gpus: int, replicas: int, own: bool) -> None:
    """Raises ConfigError where no GPU can ever come: on a cluster of our own. Another one may grow when work waits."""
    import ray

    there = int(ray.cluster_resources().get("GPU", 0))
    if own and gpus * replicas > there:
        raise ConfigError(f"the config wants {replicas} replica(s) of {gpus} GPU(s); Ray sees {there} here")


def gpus_at_most() -> int | None:
    """That the cluster's autoscaler may bring, by its configuration; None where it has none, or tells none."""
    from ray._private.state import state

    return (state.get_max_resources_from_cluster_config() or {}).get("GPU")


def check_shared(paths: list[Path]) -> None:
    """Raises ConfigError when a node does not see one of `paths`: workers on all nodes read and write them."""
    import ray
    from ray.exceptions import RayError
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    nodes = [node for node in ray.nodes() if node["Alive"]]
    look = ray.remote(_missing)
    seen = [
        look.options(num_cpus=0, scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False)).remote(
            paths
        )
        for node in nodes
    ]
    for node, asked in zip(nodes, seen, strict=True):
        try:
            missing = ray.get(asked)
        except RayError:  # the node went away meanwhile: nothing will run there
            continue
        if missing:
            message = f"node {node['NodeManagerAddress']} does not see {missing[0]}"
            raise ConfigError(f"{message}: put --work-dir and a local input on storage that all nodes share")


def _missing(paths: list[Path]) -> list[Path]:
    return [path for path in paths if not path.exists()]


def _join(address: str) -> None:
    import ray

    try:
        _knock(address)
        ray.init(address=address, log_to_driver=False, logging_level=logging.ERROR)
    except OSError as error:
        message = f"no Ray at {address} (RAY_ADDRESS), or it wants the token of RAY_AUTH_TOKEN or ~/.ray/auth_token"
        raise LsiError("ray_unreachable", f"{message}: {error}") from None


def _knock(address: str) -> None:
    """Raises OSError where nobody listens; Ray itself tries 20 times for 40 s before it says so."""
    host, _, port = address.rpartition(":")
    if port.isdigit():
        socket.create_connection((host, int(port)), timeout=10).close()
