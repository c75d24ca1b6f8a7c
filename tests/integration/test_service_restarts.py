"""The service on a real Ray with the simulated engine: what is acknowledged survives the death of anything."""

from __future__ import annotations

import json
import time

import pytest
from service_process import Service, Storage, delivered

CONFIG = """
model: lsi/simulated
engine: {type: simulated, max_num_seqs: 64, tokens_per_second: 40}
"""
DEPLOY = """
models: [{config: sim.yaml, idle_timeout_s: 600}]
api: {url_schemes: http, url_private: true, rates: {lsi_writes: {per_second: 100, burst: 100}}}
admission: {refuse: false}
"""


@pytest.fixture(scope="module")
def storage():
    storage = Storage()
    yield storage
    storage.close()


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    service = Service(tmp_path_factory.mktemp("service"), DEPLOY, {"sim.yaml": CONFIG})
    service.start()
    yield service
    service.stop()


def check(storage, name, rows):
    """Each row once, and never two different outputs."""
    output, errors = delivered(storage.objects[f"/{name}.out"])
    assert output == [f"{name}-{number}" for number in range(rows)]
    assert not errors
    assert len(set(storage.puts[f"/{name}.out"])) == 1


def test_two_callers_share_one_engine(service, storage):
    """The second one's batch is answered beside the first one's, and neither sees the other's."""
    hook = {"url": storage.url("/hook"), "secret": "whsec_c2lnbmluZw=="}
    other = service.new_token("other")
    first = service.submit(storage, "one", 4000, webhook=hook)
    service.wait_for_rows(first, 1)
    drivers = service.pids("ray::StreamDriver")
    submitted = time.monotonic()
    second = service.submit(storage, "two", 64, token=other)
    service.wait_until(lambda: service.get(second, other)["status"] == "completed", 60, "it waits")
    print(f"a second batch of 64 rows was there after {time.monotonic() - submitted:.1f} s")
    assert service.get(first)["status"] == "in_progress"
    assert service.call("GET", f"/v1/inference/batches/{second}").status_code == 404
    assert service.call("GET", f"/v1/inference/batches/{first}", token=other).status_code == 404
    view = service.wait(first, "completed")
    assert service.pids("ray::StreamDriver") == drivers
    assert view["usage"]["total_tokens"] > 4000 * 16
    check(storage, "one", 4000)
    check(storage, "two", 64)
    service.wait_until(lambda: storage.events, 10, "no webhook came")
    assert [(event["type"], event["data"]["id"]) for event in storage.events] == [("batch.completed", first)]


@pytest.mark.parametrize("victim", ["ray::ServiceActor", "ray::ServeReplica", "ray::StreamDriver"])
def test_a_killed_process_costs_nothing(service, storage, victim):
    name = victim.removeprefix("ray::")
    batch_id = service.submit(storage, name, 800)
    service.wait_for_rows(batch_id, 64)
    drivers = service.pids("ray::StreamDriver")
    service.kill(victim)
    service.wait(batch_id, "completed", seconds=90)
    if victim != "ray::StreamDriver":
        assert service.pids("ray::StreamDriver") == drivers
    check(storage, name, 800)


def test_cancel_delivers_what_is_there(service, storage):
    batch_id = service.submit(storage, "cancelled", 5000)
    service.wait_for_rows(batch_id, 64)
    begun = time.monotonic()
    assert service.call("POST", f"/v1/inference/batches/{batch_id}/cancel").status_code == 200
    service.wait(batch_id, "cancelled")
    print(f"cancelled after {time.monotonic() - begun:.1f} s")
    output, errors = delivered(storage.objects["/cancelled.out"])
    assert len(output) >= 64
    assert sorted(output + errors) == sorted(f"cancelled-{number}" for number in range(5000))


def test_a_window_that_ends_delivers_what_is_there(service, storage):
    batch_id = service.submit(storage, "expired", 20_000, completion_window="1m")
    service.wait_for_rows(batch_id, 64)
    service.wait(batch_id, "expired", seconds=90)
    output, errors = delivered(storage.objects["/expired.out"])
    assert len(output) >= 64
    assert len(output) + len(errors) == len(set(output + errors)) == 20_000


def test_an_output_url_that_is_refused_is_patched(service, storage):
    storage.refused.add("/patched.out")
    batch_id = service.submit(storage, "patched", 10)
    service.wait_until(lambda: (service.get(batch_id).get("waiting") or {}).get("reason") == "output_url", 30, "waits?")
    assert service.get(batch_id)["status"] == "finalizing"
    patch = {"output_file_uri": storage.url("/patched-anew.out")}
    response = service.call("PATCH", f"/v1/inference/batches/{batch_id}", json=patch)
    assert response.status_code == 200, response.text
    service.wait(batch_id, "completed")
    assert len(delivered(storage.objects["/patched-anew.out"])[0]) == 10


def test_a_retry_without_a_body_runs_on_the_old_urls(service, storage):
    batch_id = service.submit(storage, "retried", 10)
    service.wait(batch_id, "completed")
    answers = [service.call("POST", f"/v1/inference/batches/{batch_id}/retry") for _ in range(2)]
    assert [answer.status_code for answer in answers] == [200, 200], answers[0].text
    assert len({answer.json()["id"] for answer in answers}) == 1
    service.wait(answers[0].json()["id"], "completed")
    assert len(storage.puts["/retried.out"]) == 2


def test_all_of_ray_may_die(service, storage):
    batch_id = service.submit(storage, "survivor", 1500)
    other = service.submit(storage, "queued", 64)
    service.wait_for_rows(batch_id, 64)
    done = service.get(batch_id)["request_counts"]["completed"]
    service.kill_everything()
    service.start()
    assert service.get(batch_id)["request_counts"]["completed"] >= done
    for name, one, rows in (("survivor", batch_id, 1500), ("queued", other, 64)):
        service.wait(one, "completed", seconds=90)
        check(storage, name, rows)


def test_nothing_of_the_users_stays(service):
    """Last: every batch of this module has ended. Its two URLs are kept for a retry, and go with an archived batch."""
    for path in (service.work / "ended").iterdir():
        assert path.stat().st_mode & 0o777 == 0o600
        assert set(json.loads(path.read_bytes())) == {"input_url", "output_url"}
        for token in (service.token, service.new_token("other")):
            service.call("POST", f"/v1/inference/batches/{path.stem}/archive", token=token)
    for path in service.work.rglob("*"):
        if path.is_file():
            data = path.read_bytes()
            for word in (b"canaryquestion", b"topsecretsignature", b"whsec_"):
                assert word not in data, path
    log = (service.folder / "serve.log").read_text()
    assert "topsecretsignature" not in log
