"""How many GPUs there are for streams. Ray is played."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest

from lsi_ray.config import parse_config
from lsi_ray.service import streams
from lsi_ray.service.deploy import Deploy, Deployment, ModelSettings, Served
from lsi_ray.service.models_state import Replicas, model_state
from lsi_ray.service.sizing import Gpus
from lsi_ray.service.speed import Meter
from lsi_ray.service.streams import RayStreams


def served(name, gpus, replicas):
    engine = {"type": "simulated", "gpus": gpus}
    data = {"model": name, "engine": engine, "replicas": {"min": replicas, "max": 4}}
    return Served(parse_config(data, source=name), ModelSettings(config=Path("x")))


@pytest.fixture
def cluster(monkeypatch):
    """`gpus` of it, `free` ones among them."""
    there = SimpleNamespace(gpus=0, free=0, grown=None)

    def no_actor(*_, **__):
        raise ValueError

    monkeypatch.setattr(streams.ray, "cluster_resources", lambda: {"CPU": 2.0, "GPU": float(there.gpus)})
    monkeypatch.setattr(streams.ray, "available_resources", lambda: {"GPU": float(there.free)} if there.free else {})
    monkeypatch.setattr(streams.ray, "get_actor", no_actor)
    monkeypatch.setattr(streams, "gpus_at_most", lambda: there.grown)
    return there


@pytest.fixture
def some(cluster):  # noqa: ARG001 - is played before they look for theirs
    models = {"one": served("one", 1, 1), "pair": served("pair", 1, 2), "cpu": served("cpu", 0, 1)}
    return RayStreams(Path("work"), Deployment(Deploy.model_validate({"models": [{"config": "x"}]}), models), None)


def test_where_nothing_is_said_of_growth_the_gpus_are_those_that_are_there(cluster, some):
    cluster.gpus = 6
    assert some.gpus() == Gpus(paid=6, most=6)


def test_without_a_gpu_yet_the_first_stream_may_bring_its_own(some):
    """Its engines' demand is what an autoscaler acts on that Ray does not tell of."""
    assert some.gpus() == Gpus(paid=0, most=2)


def test_an_autoscaler_may_bring_more_and_settings_have_the_last_word(cluster, some):
    cluster.gpus, cluster.grown = 1, 16
    assert some.gpus() == Gpus(paid=0, most=16)
    settings = Deploy.model_validate({"models": [{"config": "x"}], "gpus": {"paid": 1, "most": 8}})
    limited = RayStreams(Path("work"), replace(some._deployment, settings=settings), None)
    assert limited.gpus() == Gpus(paid=1, most=8)


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
