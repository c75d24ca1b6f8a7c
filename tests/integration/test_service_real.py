"""Both surfaces end to end on the real vLLM and a real S3 server that verifies signatures."""

from __future__ import annotations

import io
import json
import os
import subprocess
import tarfile
import time

import openai
import pytest
from s3_server import S3Server
from service_process import LSI, Service

from lsi_ray.archive.pack import pack_folder
from lsi_ray.config import default_config_path
from lsi_ray.sample import write_sample

DEPLOY = """
models: [{config: tiny.yaml, idle_timeout_s: 600}]
api: {url_schemes: http, url_private: true, rates: {lsi_writes: {per_second: 100, burst: 100}}}
"""


@pytest.fixture(scope="module")
def service(tmp_path_factory):
    folder = tmp_path_factory.mktemp("service")
    service = Service(folder, DEPLOY, {"tiny.yaml": default_config_path().read_text()})
    service.start()
    yield service
    service.stop()


def body(s3: S3Server, name: str, **other: str) -> dict[str, str]:
    return {
        "input_file_uri": s3.presign("GET", f"{name}.tar.gz"),
        "output_file_uri": s3.presign("PUT", f"{name}.out"),
        "endpoint": "/v1/chat/completions",
        "model_id": "lsi/tiny-vl",
        "completion_window": "30m",
        "store": "s3",
        **other,
    }


def test_both_surfaces_answer_with_one_engine(service, s3_server, tmp_path):
    write_sample(tmp_path / "sample")
    pack_folder(tmp_path / "sample", s3_server.path("in.tar.gz"))
    rows = (tmp_path / "sample" / "jobs.jsonl").read_bytes().splitlines()
    response = service.call("POST", "/v1/inference/batches", json=body(s3_server, "in"))
    assert response.status_code == 201, response.text
    view = service.wait(response.json()[0]["id"], "completed", "failed", seconds=240)
    assert view["status"] == "completed", view
    with tarfile.open(s3_server.path("in.out")) as tar:
        parts = {name: tar.extractfile(name).read().splitlines() for name in tar.getnames()}
    assert len(parts["output.jsonl"]) + len(parts["error.jsonl"]) == len(rows)
    assert json.loads(b"".join(parts["manifest.json"]))["engine"]["name"] == "vllm"
    drivers = service.pids("ray::StreamDriver")

    client = openai.OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key=service.token)
    lines = [
        {
            "custom_id": f"row {number}",
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": {
                "model": "lsi/tiny-vl",
                "max_tokens": 8,
                "messages": [{"role": "user", "content": f"number {number}"}],
            },
        }
        for number in range(5)
    ]
    data = io.BytesIO("\n".join(map(json.dumps, lines)).encode())
    file = client.files.create(file=("jobs.jsonl", data), purpose="batch")
    batch = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    service.wait_until(lambda: client.batches.retrieve(batch.id).status == "completed", 60, "it does not end")
    batch = client.batches.retrieve(batch.id)
    answers = [json.loads(line) for line in client.files.content(batch.output_file_id).read().splitlines()]
    assert [answer["custom_id"] for answer in answers] == [f"row {number}" for number in range(5)]
    assert all(answer["response"]["body"]["usage"]["completion_tokens"] > 0 for answer in answers)
    assert batch.usage.output_tokens == sum(a["response"]["body"]["usage"]["completion_tokens"] for a in answers)
    assert service.pids("ray::StreamDriver") == drivers


def test_a_prefix_is_cached_for_its_caller_and_for_nobody_else(service):
    """Three batches of one long prompt; how much of it the engine had already."""
    ann = openai.OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key=service.token)
    made = subprocess.run(
        [str(LSI), "token", "create", "--caller", "bob", "--work-dir", str(service.work)],
        capture_output=True,
        text=True,
        timeout=60,
        check=True,
    )
    bob = openai.OpenAI(base_url=f"http://127.0.0.1:{service.port}/v1", api_key=made.stdout.strip())
    prompt = " ".join(f"secret word {number}" for number in range(150))
    assert _cached_tokens(service, ann, prompt) == 0
    assert _cached_tokens(service, bob, prompt) == 0
    assert _cached_tokens(service, ann, prompt) > 100


def _cached_tokens(service: Service, client: openai.OpenAI, prompt: str) -> int:
    row = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions"}
    messages = [{"role": "user", "content": prompt}]
    line = json.dumps({**row, "body": {"model": "lsi/tiny-vl", "max_tokens": 2, "messages": messages}})
    file = client.files.create(file=("jobs.jsonl", io.BytesIO(line.encode())), purpose="batch")
    made = client.batches.create(input_file_id=file.id, endpoint="/v1/chat/completions", completion_window="24h")
    service.wait_until(lambda: client.batches.retrieve(made.id).status == "completed", 60, "it does not end")
    usage = client.batches.retrieve(made.id).usage
    assert usage.input_tokens > 300
    return int(usage.input_tokens_details.cached_tokens)


def test_a_tampered_url_fails_and_says_so(service, s3_server):
    asked = body(s3_server, "in")
    url, _, signature = asked["input_file_uri"].partition("Signature=")
    asked["input_file_uri"] = f"{url}Signature={signature[::-1]}"
    batch_id = service.call("POST", "/v1/inference/batches", json=asked).json()[0]["id"]
    view = service.wait(batch_id, "failed", seconds=60)
    assert view["errors"]["data"][0]["code"] == "input_forbidden"
    assert signature[::-1] not in json.dumps(view)


@pytest.mark.parametrize(("seconds", "said"), [(1, "expired"), (600, "window")])
def test_a_url_that_ends_before_the_window_is_refused(service, s3_server, seconds, said):
    asked = body(s3_server, "in", input_file_uri=s3_server.presign("GET", "in.tar.gz", seconds))
    time.sleep(0 if seconds > 1 else 2)
    response = service.call("POST", "/v1/inference/batches", json=asked)
    assert response.status_code == 400
    assert said in response.json()["message"]


def lsi(service: Service, *arguments: str) -> str:
    environment = {**os.environ, "LSI_URL": f"http://127.0.0.1:{service.port}", "LSI_TOKEN": service.token}
    done = subprocess.run([str(LSI), *arguments], env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_client_commands(service, s3_environment, tmp_path):
    folder = tmp_path / "batch"
    folder.mkdir()
    row = {"custom_id": "one", "method": "POST", "url": "/v1/chat/completions"}
    row["body"] = {"model": "lsi/tiny-vl", "max_tokens": 4, "messages": [{"role": "user", "content": "hello"}]}
    (folder / "jobs.jsonl").write_text(json.dumps(row))

    found = json.loads(lsi(service, "submit", str(folder), "--via", "s3://bucket/mine", "--wait", "--json"))
    assert found["status"] == "completed"
    assert [path.name for path in s3_environment.path("mine").iterdir() if path.name.endswith(".out.tar.gz")]

    batch_id = lsi(service, "submit", str(folder)).strip()
    service.wait(batch_id, "completed")
    lsi(service, "results", batch_id, "-o", str(tmp_path / "answers"))
    answer = json.loads((tmp_path / "answers" / "output.jsonl").read_text())
    assert answer["custom_id"] == "one"
    assert batch_id in lsi(service, "list")
    assert "completed" in lsi(service, "status", batch_id)
    again = lsi(service, "retry", batch_id).strip()
    assert json.loads(lsi(service, "status", again, "--watch", "--json"))["retry_of"] == batch_id
