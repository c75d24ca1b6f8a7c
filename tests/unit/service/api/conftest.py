"""One application and one server for all tests; each test finds its backend empty and its clock at the start."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
from api_requests import FAST, Clock, serve
from fake_backend import ALICE, FakeBackend
from fastapi import FastAPI
from fastapi.testclient import TestClient

from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.settings import ApiSettings

_CLOCK = Clock()
_BACKEND = FakeBackend(_CLOCK)


@pytest.fixture(scope="session")
def app() -> FastAPI:
    return create_app(_BACKEND, ApiSettings(rates=FAST), clock=_CLOCK, steady_clock=time.monotonic)


@pytest.fixture(scope="session")
def server(app: FastAPI) -> Iterator[str]:
    with serve(app) as url:
        yield url


@pytest.fixture
def clock() -> Clock:
    _CLOCK.now = Clock().now
    return _CLOCK


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    vars(_BACKEND).clear()
    vars(_BACKEND).update(vars(FakeBackend(clock)))
    return _BACKEND


@pytest.fixture
def http(app: FastAPI, backend: FakeBackend) -> TestClient:  # noqa: ARG001
    return TestClient(app, headers={"Authorization": f"Bearer {ALICE}"}, raise_server_exceptions=False)


@pytest.fixture
def served(server: str, backend: FakeBackend) -> str:  # noqa: ARG001
    """The base URL of a real server on the loopback."""
    return server
