"""The page over the API's fake backend, as a browser sees it: cookies are kept, redirects are not followed."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from fastapi import FastAPI
from fastapi.testclient import TestClient

sys.path.append(str(Path(__file__).parents[1] / "api"))

from api_requests import FAST, Clock, lsi_body
from fake_backend import ALICE, BOB, READER, FakeBackend
from page_client import Browser

from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.settings import ApiSettings

_CLOCK = Clock()
_BACKEND = FakeBackend(_CLOCK)


@pytest.fixture
def clock() -> Clock:
    _CLOCK.now = Clock().now
    return _CLOCK


@pytest.fixture
def backend(clock: Clock) -> FakeBackend:
    vars(_BACKEND).clear()
    vars(_BACKEND).update(vars(FakeBackend(clock)))
    return _BACKEND


@pytest.fixture(scope="session")
def one_app() -> FastAPI:
    """Making one takes 0.2 s."""
    return create_app(_BACKEND, ApiSettings(rates=FAST), clock=_CLOCK)


@pytest.fixture
def app(one_app: FastAPI, backend: FakeBackend) -> FastAPI:  # noqa: ARG001
    return one_app


@pytest.fixture
def browser(app: FastAPI) -> Callable[[str], Browser]:
    """Of somebody who has signed in with a token."""

    def signed_in(token: str) -> Browser:
        one = Browser(TestClient(app, raise_server_exceptions=False, follow_redirects=False))
        assert one.http.post("/ui/sign-in", data={"token": token}).status_code == 303
        return one

    return signed_in


@pytest.fixture
def stranger(app: FastAPI) -> Browser:
    return Browser(TestClient(app, raise_server_exceptions=False, follow_redirects=False))


@pytest.fixture
def alice(browser: Callable[[str], Browser]) -> Browser:
    return browser(ALICE)


@pytest.fixture
def bob(browser: Callable[[str], Browser]) -> Browser:
    return browser(BOB)


@pytest.fixture
def reader(browser: Callable[[str], Browser]) -> Browser:
    """Alice with a token that may only read."""
    return browser(READER)


@pytest.fixture
def batch_id(app: FastAPI, clock: Clock) -> str:
    """Of Alice's, by URLs with signatures."""
    http = TestClient(app, headers={"Authorization": f"Bearer {ALICE}"})
    made = http.post("/v1/inference/batches", json=lsi_body(clock))
    assert made.status_code == 201, made.text
    batch: str = made.json()[0]["id"]
    return batch
