"""No caller's secret is anywhere but where it must be, no port is open to others, and no batch to another caller."""

from __future__ import annotations

import json
import os
import subprocess
import time

import grpc
import httpx
import psutil
import pytest
from guarded_service import CANARY
from ray.core.generated import gcs_service_pb2 as gcs
from ray.core.generated import gcs_service_pb2_grpc as gcs_grpc
from ray_dashboard import LISTINGS, dashboard
from runs import TOKEN
from service_process import LSI, delivered

BATCHES = "/v1/inference/batches"


@pytest.fixture(scope="module")
def lived(guarded, gossip):
    """Batches that came to every end, with a secret in all that was given: their ids by what became of them."""
    hook = {"url": gossip.url("/hook"), "secret": f"{CANARY}hook"}
    gossip.refused |= {"/patched.out", "/forbidden.tar"}
    ids = {"good": guarded.submit(gossip, "good", 32, webhook=hook)}
    ids["patched"] = guarded.submit(gossip, "patched", 8)
    ids["forbidden"] = guarded.submit(gossip, "forbidden", 8, input_file_uri=gossip.url("/nothing.tar"))
    ids["cancelled"] = guarded.submit(gossip, "cancelled", 4000)
    guarded.wait(ids["good"], "completed")
    assert guarded.patient("POST", f"{BATCHES}/{ids['cancelled']}/cancel").status_code == 200
    ids["survivor"] = guarded.submit(gossip, "survivor", 600)
    guarded.wait_for_rows(ids["survivor"], 32)
    guarded.kill("ray::ServiceActor")
    guarded.wait(ids["survivor"], "completed")
    guarded.wait(ids["forbidden"], "failed")
    guarded.wait_until(lambda: guarded.get(ids["patched"])["status"] == "finalizing", 60, "not finalizing")
    patch = {"output_file_uri": gossip.url("/patched-anew.out")}
    assert guarded.patient("PATCH", f"{BATCHES}/{ids['patched']}", json=patch).status_code == 200
    ids["retried"] = guarded.patient("POST", f"{BATCHES}/{ids['good']}/retry").json()["id"]
    guarded.wait(ids["patched"], "completed")
    guarded.wait(ids["cancelled"], "cancelled")
    guarded.wait(ids["retried"], "completed")
    guarded.wait_until(lambda: gossip.events, 20, "no webhook came")
    return ids


def refused_bodies(gossip):
    """What is wrong is named in the answer, and may not be quoted."""
    url = gossip.url("/good.tar")
    good = {"input_file_uri": url, "output_file_uri": url, "endpoint": "/v1/chat/completions", "store": "s3"}
    good |= {"model_id": "lsi/simulated", "completion_window": "24h"}
    old = url.replace("X-Amz-Date=20", "X-Amz-Date=19")
    yield from ({**good, field: url} for field in ("endpoint", "model_id", "completion_window", "store"))
    yield {**good, "input_file_uri": old}
    yield {**good, "completion_window": "20d"}
    yield {**good, "input_file_uri": url.replace("http:", "gopher:")}
    yield {**good, "input_file_uri": url.replace("127.0.0.1", "no such host")}
    yield {**good, url: 1}
    yield {**good, "input_file_uri": [url]}
    yield {**good, "webhook": {"url": f"javascript:{url}", "secret": f"{CANARY}hook"}}


def test_no_answer_repeats_a_secret(guarded, gossip, lived):
    for body in refused_bodies(gossip):
        assert guarded.patient("POST", BATCHES, json=body).status_code in (400, 404, 422), body
    broken = json.dumps({"input_file_uri": gossip.url("/x")})[:-1].encode()
    guarded.patient("POST", BATCHES, content=broken, headers={"Content-Type": "application/json"})
    guarded.call("GET", f"{BATCHES}?after={gossip.url('/x')}")
    guarded.call("GET", "/v1/batches", params={"after": gossip.url("/x")})
    unknown = guarded.call("GET", BATCHES, token=f"lsi-0123456789ab-{CANARY}")
    assert unknown.status_code == 401
    assert "Give a valid token (lsi-...) in the Authorization header, of the scheme Bearer" in unknown.text
    for batch_id in lived.values():
        for path in (BATCHES, "/v1/batches"):
            assert guarded.call("GET", f"{path}/{batch_id}").status_code == 200
    for path in (BATCHES, "/v1/batches", "/openapi.json", "/docs", "/v1/inference/health", "/v1/inference/models"):
        guarded.call("GET", path)
    assert len(guarded.answers) > 40
    for answer in guarded.answers:
        heads = repr(answer.headers).encode()
        assert not guarded.leaks(answer.content + heads), (answer.request.method, answer.request.url.path, answer.text)


def test_outputs_and_events_hold_no_secret(guarded, gossip, lived):  # noqa: ARG001 - the batches must have ended
    import gzip

    outputs = {path: data for path, data in gossip.objects.items() if ".out" in path}
    assert len(outputs) >= 4
    for path, data in outputs.items():
        plain = gzip.decompress(data) if data[:2] == b"\x1f\x8b" else data
        assert not guarded.leaks(plain), path
        assert delivered(data)
    assert not guarded.leaks(json.dumps(gossip.events).encode())


def test_nothing_that_was_written_holds_a_secret(guarded, lived):  # noqa: ARG001
    """Ray's session with its logs and events, what `lsi serve` said, and the work dir, its ledger and WAL included."""
    kept = guarded.work / "ended"
    time.sleep(1.5)  # Ray writes its events once a second
    files = [path for folder in (guarded.session, guarded.work) for path in folder.rglob("*")]
    files = [path for path in files if path.is_file() and not path.is_symlink()] + [guarded.folder / "serve.log"]
    assert len(files) > 30
    assert {"raylet.out", "gcs_server.out", "serve.log"} <= {path.name for path in files}
    allowed = set(kept.iterdir())
    assert allowed
    for path in files:
        found = guarded.leaks(path.read_bytes())
        if path in allowed:  # the two URLs of an ended batch, for a retry: documented
            assert found, path  # what is looked for is found where it is
            assert path.stat().st_mode & 0o777 == 0o600
        else:
            assert not found, (path, found)
    assert kept.stat().st_mode & 0o777 == 0o700


def test_no_process_shows_a_secret(guarded, lived):  # noqa: ARG001
    """Ray's own token is in the environment, where whoever started it put it, and on no command line."""
    ray_token = TOKEN["RAY_AUTH_TOKEN"]
    processes = guarded.tree()
    assert len(processes) > 8
    for process in processes:
        try:
            shown, environment = " ".join(process.cmdline()), repr(process.environ())
        except psutil.Error:
            continue
        assert not guarded.leaks(shown.encode()), shown
        assert not guarded.leaks(environment.replace(ray_token, "").encode()), shown


def gcs_address(service):
    for process, ip, port in service.listeners():
        if process.name().startswith("gcs_server"):
            return f"{ip.removeprefix('::ffff:')}:{port}"
    raise AssertionError("no GCS")


def test_rays_tables_show_no_secret_and_want_a_token(guarded, lived):  # noqa: ARG001
    """What `ray list`, the dashboard and the job table are made of, as bytes."""
    with grpc.insecure_channel(gcs_address(guarded)) as channel:
        calls = [
            (gcs_grpc.ActorInfoGcsServiceStub(channel).GetAllActorInfo, gcs.GetAllActorInfoRequest()),
            (gcs_grpc.TaskInfoGcsServiceStub(channel).GetTaskEvents, gcs.GetTaskEventsRequest()),
            (gcs_grpc.JobInfoGcsServiceStub(channel).GetAllJobInfo, gcs.GetAllJobInfoRequest()),
            (gcs_grpc.NodeInfoGcsServiceStub(channel).GetAllNodeInfo, gcs.GetAllNodeInfoRequest()),
            (gcs_grpc.WorkerInfoGcsServiceStub(channel).GetAllWorkerInfo, gcs.GetAllWorkerInfoRequest()),
        ]
        seen = b""
        for call, request in calls:
            for token in ((), (("authorization", "Bearer wrong"),)):
                with pytest.raises(grpc.RpcError) as refused:
                    call(request, timeout=10, metadata=token)
                assert refused.value.code() == grpc.StatusCode.UNAUTHENTICATED
            metadata = (("authorization", f"Bearer {TOKEN['RAY_AUTH_TOKEN']}"),)
            seen += call(request, timeout=10, metadata=metadata).SerializeToString()
        kv = gcs_grpc.InternalKVGcsServiceStub(channel)
        for namespace in (b"", b"serve", b"job", b"fun", b"lsi", b"dashboard"):
            keys = kv.InternalKVKeys(gcs.InternalKVKeysRequest(namespace=namespace), timeout=10, metadata=metadata)
            for key in keys.results:
                get = gcs.InternalKVGetRequest(namespace=namespace, key=key)
                seen += key + kv.InternalKVGet(get, timeout=10, metadata=metadata).value
    assert b"ServiceActor" in seen
    assert not guarded.leaks(seen)


def rows(answer):
    return answer.json()["data"]["result"]["result"]


def test_no_listing_of_rays_shows_a_secret(guarded, gossip, lived):  # noqa: ARG001
    """`ray list`, `ray summary` and the dashboard, while a batch is at work."""
    running = guarded.submit(gossip, "listed", 4000)
    guarded.wait_for_rows(running, 32)
    seen = {}
    with dashboard(guarded) as client:
        for path in LISTINGS:
            assert client.get(path, headers={"Authorization": "Bearer wrong"}).status_code in (401, 403), path
            seen[path] = client.get(path)
        found = {path.partition("?")[0]: answer for path, answer in seen.items()}
        jobs, nodes = ([row[f"{one}_id"] for row in rows(found[f"/api/v0/{one}s"])] for one in ("job", "node"))
        assert len(nodes) == 1
        details = [f"/nodes/{node}" for node in nodes]
        details += [f"/api/{kind}/{job}" for job in jobs for kind in ("jobs", "data/datasets") if job]
        for path in details:
            seen[path] = client.get(path)
    assert guarded.patient("POST", f"{BATCHES}/{running}/cancel").status_code == 200
    for path, answer in seen.items():
        assert answer.status_code == 200, (path, answer.text)
        assert not guarded.leaks(answer.content), path
    for kind in ("actors", "tasks", "objects", "workers"):
        assert rows(found[f"/api/v0/{kind}"]), kind
    assert b"ServiceActor" in found["/api/v0/actors"].content


def test_every_port_is_this_machines_and_wants_a_token(guarded):
    listeners = guarded.listeners()
    wide = [(p.cmdline()[:1], ip, port) for p, ip, port in listeners if ip.removeprefix("::ffff:") != "127.0.0.1"]
    assert not wide
    assert len(listeners) > 8
    answered = {}
    for process, _, port in listeners:
        for path in ("/", "/api/jobs/", "/api/serve/applications/", "/nodes", "/logs", "/metrics"):
            try:
                answer = httpx.get(f"http://127.0.0.1:{port}{path}", timeout=5, trust_env=False)
            except httpx.TransportError:
                break  # gRPC: see the test of Ray's tables
            answered[process.cmdline()[0].strip(), path] = answer
    assert answered
    for where, answer in answered.items():
        assert not guarded.leaks(answer.content), where
    # What answers without a token is the Prometheus page of the agent, on every path, as scrapers want it.
    public = [answer for answer in answered.values() if answer.status_code == 200]
    assert public
    for answer in public:
        assert "# HELP" in answer.text[:100], answer.text[:200]
    assert any("lsi_" in answer.text for answer in public)


def test_serves_replicas_take_no_pickle_without_a_token(guarded):
    from ray.serve.generated import serve_pb2, serve_pb2_grpc

    ports = [port for process, _, port in guarded.listeners() if process.cmdline()[0].startswith("ray::ServeReplica")]
    assert len(ports) == 2  # its own of Ray, and the one for calls of other deployments
    codes = []
    for port in ports:
        with grpc.insecure_channel(f"127.0.0.1:{port}") as channel:
            stub = serve_pb2_grpc.ASGIServiceStub(channel)
            with pytest.raises(grpc.RpcError) as refused:
                stub.HandleRequest(serve_pb2.ASGIRequest(pickled_request_metadata=b"no pickle"), timeout=10)
            codes.append(refused.value.code())
    assert sorted(code.name for code in codes) == ["UNAUTHENTICATED", "UNIMPLEMENTED"]


def routes(guarded):
    """Every operation of the document, its ids given."""
    paths = guarded.call("GET", "/openapi.json").json()["paths"]
    return [(method.upper(), path) for path, methods in paths.items() for method in methods]


def test_what_is_anothers_does_not_exist_on_any_route(guarded, gossip, lived):
    uploaded = guarded.patient(
        "POST", "/v1/files", data={"purpose": "batch"}, files={"file": ("a.jsonl", b'{"custom_id": "a"}')}
    ).json()["id"]
    ids = {"batch_id": lived["good"], "file_id": uploaded}
    body = {"PATCH": {"priority": 1}, "POST": {}}
    owned = [(method, path) for method, path in routes(guarded) if "{" in path]
    assert len(owned) >= 12
    for method, path in owned:
        asked = path.format(**ids)
        how = {"json": body[method]} if method in body else {}
        answer = guarded.patient(method, asked, token=guarded.other, **how)
        unknown = guarded.patient(method, path.format(batch_id="batch_x", file_id="file-x"), token=guarded.other, **how)
        assert (answer.status_code, unknown.status_code) == (404, 404), (method, path, answer.text)
        same = answer.text.replace(ids["batch_id"], "").replace(uploaded, "")
        assert same == unknown.text.replace("batch_x", "").replace("file-x", ""), path
        assert guarded.call(method, asked, headers={"Authorization": ""}, **how).status_code == 401
    theirs = {"input_file_id": uploaded, "endpoint": "/v1/chat/completions", "completion_window": "24h"}
    assert guarded.patient("POST", "/v1/batches", json=theirs, token=guarded.other).status_code == 404
    for path in (BATCHES, "/v1/batches", "/v1/files"):
        listed = guarded.call("GET", path, token=guarded.other).text
        assert not any(one in listed for one in (*lived.values(), uploaded))
    assert guarded.call("DELETE", f"/v1/files/{uploaded}").status_code == 200
    assert gossip.events


def test_stop_finds_the_service_of_a_work_dir_and_says_so_when_there_is_none(guarded, tmp_path):
    assert int((guarded.work / "serve.lock").read_text()) == guarded.process.pid
    environment = {**os.environ, "RAY_ADDRESS": ""}
    command = [str(LSI), "serve", "--stop", "--work-dir", str(tmp_path)]
    begun = time.monotonic()
    stopped = subprocess.run(command, capture_output=True, text=True, env=environment, timeout=30, check=False)
    assert stopped.returncode != 0
    assert "no lsi serve runs on" in stopped.stderr
    assert time.monotonic() - begun < 15
