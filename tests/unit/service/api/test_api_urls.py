"""Pre-signed URLs are read at submission: too short a signature is told at once, and what to do about it."""

from __future__ import annotations

import pytest
from api_requests import FAST, SECRET, Clock, lsi_body, signed
from fake_backend import ALICE, FakeBackend
from fastapi.testclient import TestClient

from lsi_ray.errors import StorageError
from lsi_ray.ledger.states import BatchStatus
from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.settings import ApiSettings
from lsi_ray.storage.guard import admit
from lsi_ray.storage.secret_url import SecretUrl

BATCHES = "/v1/inference/batches"
DAY = 86_400


@pytest.mark.parametrize("field", ["input_file_uri", "output_file_uri"])
@pytest.mark.parametrize(
    ("age", "lifetime", "code", "said"),
    [
        (2 * DAY, DAY, "url_expired", "1 day"),
        (0, 3 * DAY, "url_ends_early", "4 days before the window of 7d"),
        (0, 7 * DAY - 7200, "url_ends_early", "2 hours before the window of 7d"),
        (60, 0, "url_expired", "ago"),
    ],
)
def test_a_url_that_does_not_live_long_enough_is_refused_with_advice(
    http: TestClient, clock: Clock, field: str, age: float, lifetime: float, code: str, said: str
) -> None:
    url = signed(clock.now - age, lifetime)
    answer = http.post(BATCHES, json=lsi_body(clock, **{field: url}))
    assert answer.status_code == 400
    [detail] = answer.json()["details"]
    assert (detail["code"], detail["field"]) == (code, field)
    assert said.replace("1 day", "24 hours") in detail["message"]
    assert "sign it again for at least 7 days (ExpiresIn=605100)" in detail["message"]
    assert SECRET not in answer.text


def test_with_a_setting_it_is_accepted_and_the_batch_carries_the_warning(backend: FakeBackend, clock: Clock) -> None:
    app = create_app(backend, ApiSettings(rates=FAST, short_urls="warn"), clock=clock)
    http = TestClient(app, headers={"Authorization": f"Bearer {ALICE}"})
    [batch] = http.post(BATCHES, json=lsi_body(clock, output_file_uri=signed(clock.now, DAY))).json()
    assert "before the window of 7d" in batch["warnings"][0]
    assert backend.batches[batch["id"]].deadline == clock.now + 7 * DAY


def test_seven_days_signed_for_a_window_of_seven_days_do(http: TestClient, backend: FakeBackend, clock: Clock) -> None:
    """S3 signs for 7 days at most, and some seconds always pass: the deadline moves a little instead."""
    url = signed(clock.now - 120, 7 * DAY)
    [batch] = http.post(BATCHES, json=lsi_body(clock, output_file_uri=url)).json()
    assert backend.batches[batch["id"]].deadline == clock.now + 7 * DAY - 120 - 300
    assert batch["completion_window"] == "7d"
    assert "shortened" in batch["warnings"][0]


@pytest.mark.parametrize(
    ("url", "code"),
    [
        ("http://bucket.example.com/a?sig=1", "destination_not_allowed"),
        ("https://bucket.example.com:8443/a", "destination_not_allowed"),
        ("https://user:pw@bucket.example.com/a", "invalid_url"),
        ("https://good.example.com\\@127.0.0.1/", "invalid_url"),
        ("s3://bucket/key", "invalid_url"),
        ("file:///etc/passwd", "invalid_url"),
        ("", "invalid_url"),
    ],
)
@pytest.mark.parametrize("where", ["input_file_uri", "output_file_uri", "webhook"])
def test_urls_that_lead_elsewhere_are_refused(
    http: TestClient, clock: Clock, backend: FakeBackend, url: str, code: str, where: str
) -> None:
    change: object = {"url": url, "secret": "x" * 16} if where == "webhook" else url
    answer = http.post(BATCHES, json=lsi_body(clock, **{where: change}))
    assert (answer.status_code, answer.json()["details"][0]["code"]) == (400, code)
    assert backend.batches == {}


def test_a_batch_whose_url_ran_out_is_patched_with_a_new_one(
    http: TestClient, clock: Clock, backend: FakeBackend
) -> None:
    [batch] = http.post(BATCHES, json=lsi_body(clock)).json()
    backend.move(batch["id"], BatchStatus.FINALIZING)
    clock.now += 7.5 * DAY  # past the window: only the delivery is left
    old = http.patch(f"{BATCHES}/{batch['id']}", json={"output_file_uri": signed(clock.now - DAY, DAY / 2)})
    assert old.json()["details"][0]["code"] == "url_expired"
    new = signed(clock.now, 3600, "again.tar.gz")
    answer = http.patch(f"{BATCHES}/{batch['id']}", json={"output_file_uri": new})
    assert answer.status_code == 200
    [patch] = backend.changes
    assert patch.output_url is not None
    assert patch.output_url.reveal() == new
    assert SECRET not in answer.text + repr(patch)


def test_window_and_priority_are_patched_within_bounds(http: TestClient, clock: Clock, backend: FakeBackend) -> None:
    [batch] = http.post(BATCHES, json=lsi_body(clock)).json()
    path = f"{BATCHES}/{batch['id']}"
    clock.now += DAY
    changed = http.patch(path, json={"completion_window": "2w", "priority": 9}).json()
    assert (changed["completion_window"], changed["priority"]) == ("2w", 9)
    assert backend.batches[batch["id"]].deadline == clock.now + 13 * DAY
    for body in ({}, {"completion_window": "12h"}, {"completion_window": "5w"}, {"priority": 101}, {"status": "x"}):
        assert http.patch(path, json=body).status_code == 400, body
    backend.move(batch["id"], BatchStatus.COMPLETED)
    assert http.patch(path, json={"priority": 1}).status_code == 409


@pytest.mark.parametrize(
    ("switches", "url", "code"),
    [
        ({}, "http://bucket.example.com/a", "destination_not_allowed"),
        ({}, "https://127.0.0.1/a", "destination_not_allowed"),
        ({"url_schemes": "http"}, "http://bucket.example.com:9000/a", None),
        ({"url_schemes": "http"}, "http://127.0.0.1/a", "destination_not_allowed"),
        ({"url_schemes": "http"}, "http://169.254.169.254/latest/meta-data", "destination_not_allowed"),
        ({"url_private": True}, "https://10.0.0.7:9000/a", None),
        ({"url_private": True}, "http://10.0.0.7/a", "destination_not_allowed"),
        ({"url_schemes": "http", "url_private": True}, "http://127.0.0.1:9000/a", None),
    ],
)
def test_private_addresses_have_a_switch_of_their_own(switches: dict[str, object], url: str, code: str | None) -> None:
    """As a transfer asks, at the moment it connects."""
    policy = ApiSettings.model_validate(switches).url_policy

    def resolve(host: str, _: int) -> list[str]:
        return ["93.184.216.34"] if host == "bucket.example.com" else [host]

    if code is None:
        admit(SecretUrl(url), policy, resolve)
        return
    with pytest.raises(StorageError) as caught:
        admit(SecretUrl(url), policy, resolve)
    assert caught.value.code == code
