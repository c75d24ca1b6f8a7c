"""Which streams the GPUs of a cluster let start. Ray is played."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

from lsi_ray.config import parse_config
from lsi_ray.service import streams
from lsi_ray.service.deploy import Deploy, Deployment, ModelSettings, Served
from lsi_ray.service.models_state import Replicas, model_state
from lsi_ray.service.speed import Meter
from lsi_ray.service.streams import RayStreams


def served(name, gpus, replicas):
    engine = {"type": "simulated", "gpus": gpus}
    data = {"model": name, "engine": engine, "replicas": {"min": replicas, "max": 4}}
    return Served(parse_config(data, source=name), ModelSettings(config=Path("x")))


@pytest.fixture
def cluster(monkeypatch):
    """`gpus` of it, `free` ones among them."""
    there = SimpleNamespace(gpus=0, free=0)

    def no_actor(*_, **__):
        raise ValueError

    monkeypatch.setattr(streams.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": float(there.gpus)})
    monkeypatch.setattr(streams.ray, "available_resources", lambda: {"GPU": float(there.free)} if there.free else {})
    monkeypatch.setattr(streams.ray, "get_actor", no_actor)
    return there


@pytest.fixture
def some(cluster):  # noqa: ARG001 - is played before they look for theirs
    models = {"one": served("one", 1, 1), "pair": served("pair", 1, 2), "cpu": served("cpu", 0, 1)}
    return RayStreams(Path("work"), Deployment(Deploy.model_validate({"models": [{"config": "x"}]}), models), None)


def test_the_first_stream_starts_on_a_cluster_that_has_no_gpu_yet(some):
    """Its engines' demand is what an autoscaler acts on."""
    assert some.has_room("pair")
    some._waits["cpu"] = None
    assert some.has_room("pair")


def test_a_stream_beside_others_needs_gpus_that_are_there(cluster, some):
    cluster.gpus = 2
    some._waits["one"] = None
    assert not some.has_room("pair")
    assert some.has_room("cpu")
    cluster.gpus = 3
    assert some.has_room("pair")


def test_a_stream_without_a_free_gpu_waits_for_one_and_says_so(cluster, some, folder):
    some._waits |= {"one": None, "cpu": None}
    assert some.short_of_gpus() == {"one"}
    state = {"served": True, "no_room": False, "failure": None, "streaming": True, "short_of_gpus": True}
    replicas = Replicas(folder)
    waiting = model_state("one", Meter(), replicas, **state).waiting
    assert (waiting.reason, waiting.message) == ("model_loading", "waits for GPUs: the cluster has none free")
    replicas.note("one", replicas.new("r", "loading", "", {}))
    assert model_state("one", Meter(), replicas, **state).waiting.message == "the engine is loading"
    cluster.gpus = cluster.free = 1
    assert not some.short_of_gpus()


def test_a_full_disk_is_why_nothing_moves_whatever_else_is_missing(folder):
    state = {"served": True, "no_room": True, "failure": "dead", "streaming": True, "disk_full": True}
    assert model_state("one", Meter(), Replicas(folder), **state).waiting.reason == "no_space"
