"""Which actors of a pool go, and when the render pool asks for more. Ray Data's pools are played."""

from __future__ import annotations

from dataclasses import dataclass
from types import SimpleNamespace

import pytest

from lsi_ray.config import parse_config
from lsi_ray.stream import resize
from lsi_ray.stream.resize import Wanted, Yielding


@dataclass(frozen=True)
class Sizes:
    min_size: int
    max_size: int
    initial_size: int


class Pool:
    """As much of Ray Data's as is touched: actors by age, and what was said of each at the last refresh."""

    def __init__(self, *actors, pending=0, util=2.0):
        self._config = Sizes(1, 8, 1)
        self._running_actors = {actor: SimpleNamespace() for actor in actors}
        self.pending, self.util = pending, util
        self.dead = set()

    def min_size(self):
        return self._config.min_size

    def max_size(self):
        return self._config.max_size

    def current_size(self):
        return len(self._running_actors) + self.pending

    def num_running_actors(self):
        return len(self._running_actors)

    def num_pending_actors(self):
        return self.pending

    def get_pool_util(self):
        return self.util

    def _update_rank(self, actor, state, died):  # noqa: ARG002
        (self.dead.add if died else self.dead.discard)(actor)

    def refresh(self):
        for actor, state in self._running_actors.items():
            self._update_rank(actor=actor, state=state, died=False)


def test_the_pool_is_told_one_number():
    pool = Pool("a", "b")
    Yielding(pool).follow(4)
    assert pool._config == Sizes(4, 4, 4)


def test_those_that_came_last_get_no_more_and_get_some_again():
    pool = Pool("a", "b", "c", "d")
    yielding = Yielding(pool)
    yielding.follow(2)
    pool.refresh()
    assert pool.dead == {"c", "d"}
    yielding.follow(3)
    pool.refresh()
    assert pool.dead == {"d"}
    yielding.follow(4)
    pool.refresh()
    assert pool.dead == set()


def test_one_that_has_gone_frees_no_other():
    pool = Pool("a", "b", "c", "d")
    yielding = Yielding(pool)
    yielding.follow(2)
    del pool._running_actors["d"]
    yielding.follow(2)
    pool.refresh()
    assert pool.dead == {"c"}


@pytest.fixture
def follower(monkeypatch):
    monkeypatch.setattr(resize, "render_workers", lambda _: 4)
    config = {"model": "m", "engine": {"type": "simulated"}, "replicas": {"min": 1, "max": 2}}
    found = resize._Follower(parse_config(config, source="test"), Wanted(2))
    found._generate, found._render = Yielding(Pool("a", "b", util=0.2)), Pool(*"wxyz")
    waits = SimpleNamespace(total_enqueued_input_blocks=lambda: 5)
    none = SimpleNamespace(total_enqueued_input_blocks=lambda: 0)
    found._waiting = (none, waits)
    return found


def test_render_asks_for_more_than_there_is_while_engines_starve(follower):
    follower._follow_render()
    assert (follower._render.min_size(), follower._render.max_size()) == (5, 5)


def test_render_waits_for_those_it_asked_for_and_lets_them_go_when_nobody_starves(follower):
    follower._follow_render()
    follower._render.pending = 1
    follower._follow_render()
    assert (follower._render.min_size(), follower._render.max_size()) == (5, 5)
    follower._generate = Yielding(Pool("a", "b", util=1.2))
    follower._follow_render()
    assert (follower._render.min_size(), follower._render.max_size()) == (1, 4)


def test_render_follows_the_cluster_when_nobody_starves(follower, monkeypatch):
    follower._generate = Yielding(Pool("a", "b", util=1.2))
    monkeypatch.setattr(resize, "render_workers", lambda _: 9)
    follower._follow_render()
    assert (follower._render.min_size(), follower._render.max_size()) == (1, 9)
