"""What Ray's cluster is made of, for the web page."""

from __future__ import annotations

import ray

from lsi_ray.service.page_views import NodeView

_ACCELERATOR = "accelerator_type:"


def cluster_nodes() -> tuple[tuple[NodeView, ...], float]:
    """The nodes that are alive, those with most GPUs first, and how many GPUs nobody has taken."""
    views = [_node(node["Resources"]) for node in ray.nodes() if node["Alive"]]
    views.sort(key=lambda node: (-node.gpus, -node.cpus))
    return tuple(views), float(ray.available_resources().get("GPU", 0.0))


def _node(resources: dict[str, float]) -> NodeView:
    names = (name.removeprefix(_ACCELERATOR) for name in resources if name.startswith(_ACCELERATOR))
    return NodeView(
        resources.get("CPU", 0.0), resources.get("GPU", 0.0), resources.get("memory", 0.0), next(names, None)
    )
