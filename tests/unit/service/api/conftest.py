from __future__ import annotations

from collections.abc import Iterator

import pytest
from api_requests import FAST, Clock, serve
from fake_backend import ALICE, FakeBackend
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.settings import ApiSettings


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    return FakeBackend(clock)


@pytest.fixture
def settings() -> ApiSettings:
    return ApiSettings(rates=FAST)


@pytest.fixture
def app(backend: FakeBackend, settings: ApiSettings, clock: Clock) -> FastAPI:
    return create_app(backend, settings, clock=clock, steady_clock=clock)


@pytest.fixture
def http(app: FastAPI) -> TestClient:
    return TestClient(app, headers={"Authorization": f"Bearer {ALICE}"}, raise_server_exceptions=False)


@pytest.fixture
def served(app: FastAPI) -> Iterator[str]:
    """The base URL of a real server on the loopback."""
    with serve(app) as url:
        yield url
