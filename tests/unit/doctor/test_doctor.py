"""`lsi doctor`: each check finds its fault and says what to do; what is good passes."""

from __future__ import annotations

import json
import socket
import subprocess
from collections.abc import Callable
from email.utils import formatdate
from importlib.metadata import PackageNotFoundError
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from lsi_ray.cli.main import app
from lsi_ray.config import Config, load_config, parse_config
from lsi_ray.doctor import machine, network, software
from lsi_ray.doctor.check import Check
from lsi_ray.doctor.examine import examinations, examine
from lsi_ray.doctor.gpus import visible_gpus
from lsi_ray.doctor.software import Health
from lsi_ray.errors import StorageError
from lsi_ray.storage.location import Location

GB = 10**9
H100 = "NVIDIA H100, 80GB HBM3, 550.54, 81559, 4\n"
SIMULATED = {"model": "m", "engine": {"type": "simulated"}}


def vllm(**args: Any) -> Config:
    engine = {"type": "vllm", "args": {"model": "org/name", **args}}
    return parse_config({"model": "m", "engine": engine}, source="test")


def cpu() -> Config:
    return load_config(None)


def answering(text: str) -> Callable[[], str]:
    return lambda: text


def raising(error: Exception) -> Callable[..., Any]:
    def fail(*_: object, **__: object) -> Any:
        raise error

    return fail


NO_DRIVER = raising(FileNotFoundError("nvidia-smi"))
BROKEN_DRIVER = raising(OSError("Driver/library version mismatch"))
HANGING_DRIVER = raising(subprocess.TimeoutExpired("nvidia-smi", 20))


@pytest.mark.parametrize(
    ("config", "ask", "state", "words"),
    [
        (vllm(), answering(H100), "ok", "1 x NVIDIA H100, 80GB HBM3 of 80 GiB, driver 550.54"),
        (cpu(), NO_DRIVER, "ok", "none; this config needs none"),
        (vllm(), NO_DRIVER, "failed", "no NVIDIA driver"),
        (vllm(), BROKEN_DRIVER, "failed", "version mismatch"),
        (vllm(), HANGING_DRIVER, "failed", "timed out"),
        (vllm(), answering(""), "failed", "lists none"),
        (
            vllm(tensor_parallel_size=2),
            answering(H100),
            "failed",
            "1 may be used, and a replica of this config takes 2",
        ),
        (vllm(), answering(H100.replace(", 4\n", ", 60000\n")), "warning", "1 in use: 60,000 MiB"),
    ],
)
def test_gpus(config, ask, state, words, monkeypatch):
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    check = software.gpus(config, ask)
    assert check.state == state
    assert words in check.found
    assert bool(check.advice) == (state != "ok")


@pytest.mark.parametrize(("shown", "count"), [("", 0), ("-1", 0), ("0", 1), ("0,1", 2), ("GPU-a,GPU-b,GPU-c", 2)])
def test_gpus_that_are_hidden_do_not_count(shown, count, monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", shown)
    assert len(visible_gpus(answering(2 * H100))) == count


@pytest.mark.parametrize(
    ("config", "health", "state", "words"),
    [
        (vllm(), Health("0.32", "2.13", "12.9", 8), "ok", "for CUDA 12.9, 8 GPUs"),
        (cpu(), Health("0.32", "2.13+cpu"), "ok", "for the CPU"),
        (vllm(), Health("0.32", "2.13+cpu"), "failed", "built for the CPU"),
        (vllm(), Health("0.32", "2.13", "12.9", 0), "failed", "torch can use no GPU"),
        (vllm(), Health("0.40", "3.0", "13", 8, ("AsyncLLM",)), "failed", "not found in it: AsyncLLM"),
        (vllm(), Health(error="ImportError: libcudart.so"), "failed", "cannot be imported: ImportError: libcudart"),
    ],
)
def test_vllm(config, health, state, words):
    check = software.vllm(config, lambda: health)
    assert (check.state, words in check.found) == (state, True), check


def test_vllm_is_not_asked_for_where_the_engine_is_simulated():
    assert software.vllm(parse_config(SIMULATED, source="test"), raising(AssertionError())).state == "ok"


@pytest.mark.parametrize(("there", "state"), [("2.60.0", "ok"), ("2.9.0", "failed"), (None, "failed")])
def test_ray(there, state):
    installed = raising(PackageNotFoundError("ray")) if there is None else lambda _: there
    assert software.ray(installed).state == state


def test_the_weights_are_looked_for_in_the_cache_of_the_hub(tmp_path):
    missing = software.model(vllm(), tmp_path)
    assert missing is not None
    assert missing.state == "warning"
    assert "hf download org/name" in missing.advice
    (tmp_path / "models--org--name" / "snapshots" / "abc").mkdir(parents=True)
    for config in (vllm(), vllm(load_format="dummy"), vllm(model=str(tmp_path))):
        found = software.model(config, tmp_path)
        assert found is not None
        assert found.state == "ok"
    assert software.model(cpu(), tmp_path) is None


@pytest.mark.parametrize(
    ("check", "state"),
    [
        (machine.system((3, 11), "linux"), "ok"),
        (machine.system((3, 14), "linux"), "failed"),
        (machine.system((3, 11), "darwin"), "failed"),
        (machine.memory(64 * GB, 32 * GB), "ok"),
        (machine.memory(64 * GB, 64 * 10**6), "warning"),
        (machine.memory(512 * GB, 16 * GB), "ok"),
        (machine.open_files(1024), "warning"),
        (machine.open_files(-1), "ok"),
        (machine.open_files(1_048_576), "ok"),
        (machine.clock(0), "ok"),
        (machine.clock(5), "warning"),
        (machine.clock(-1), "warning"),
    ],
)
def test_the_machine(check, state):
    assert check.state == state
    assert bool(check.advice) == (state != "ok")


@pytest.mark.parametrize(
    ("total", "free", "state"), [(100, 50, "ok"), (100, 10, "warning"), (4000, 100, "warning"), (100, 1, "failed")]
)
def test_disks(tmp_path, total, free, state):
    check = machine.disk("work dir", tmp_path / "not" / "there", "move", lambda _: (total * GB, 0, free * GB))
    assert check.state == state
    assert not (tmp_path / "not").exists()


def test_a_port_that_is_taken_is_told():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        taken.listen()
        number = taken.getsockname()[1]
        assert machine.port(number, "`lsi serve`").state == "warning"
        assert network.ray_address(f"127.0.0.1:{number}").state == "ok"
    assert machine.port(number, "`lsi serve`").state == "ok"
    assert network.ray_address(f"127.0.0.1:{number}").state == "failed"
    assert network.service(f"http://127.0.0.1:{number}").state == "failed"


PLACE = Location.parse("https://user:pass@storage.example/in.tar?X-Amz-Signature=secret")


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (StorageError("input_forbidden", "no"), "AWS_ACCESS_KEY_ID"),
        (StorageError("input_not_found", "no"), "check the bucket and the key"),
        (StorageError("input_unavailable", "no", transient=True), "AWS_ENDPOINT_URL"),
    ],
)
def test_storage_that_does_not_answer_says_what_to_look_at(error, words):
    check = network.storage(PLACE, raising(error))
    assert check.state == "failed"
    assert words in check.advice
    assert "secret" not in check.found
    assert network.storage(PLACE, lambda *_, **__: None).state == "ok"


@pytest.mark.parametrize(
    ("ahead", "state"), [(0, "ok"), (-20, "ok"), (120, "warning"), (-1200, "failed"), (1200, "failed")]
)
def test_clocks_that_differ_are_told_and_nothing_signed_is_sent(ahead, state):
    asked: list[str] = []

    def ask(origin: str) -> str:
        asked.append(origin)
        return formatdate(1_700_000_000, usegmt=True)

    check = network.skew(PLACE, ask, lambda: 1_700_000_000.0 + ahead)
    assert check.state == state
    assert asked == ["https://storage.example/"]


def test_a_check_that_breaks_hides_no_other(monkeypatch, tmp_path):
    monkeypatch.setattr(machine, "clock", raising(RuntimeError("no libc")))
    checks = examine(parse_config(SIMULATED, source="test"), tmp_path, None)
    broken = [check for check in checks if "no libc" in check.found]
    assert [check.name for check in broken] == ["clock"]
    assert len(checks) > 8


def test_what_the_environment_names_is_looked_at(monkeypatch, tmp_path):
    config = parse_config(SIMULATED, source="test")
    monkeypatch.setenv("RAY_ADDRESS", "head:6379")
    monkeypatch.setenv("LSI_URL", "http://127.0.0.1:8000")
    names = {name for name, _ in examinations(config, tmp_path, PLACE)}
    assert {"RAY_ADDRESS", "service", "storage", "time"} <= names
    monkeypatch.setenv("RAY_ADDRESS", "auto")
    assert "RAY_ADDRESS" not in {name for name, _ in examinations(config, tmp_path, None)}


@pytest.mark.parametrize(("state", "code"), [("ok", 0), ("warning", 0), ("failed", 1)])
def test_the_exit_code_tells_whether_something_failed(state, code, monkeypatch, tmp_path):
    check = Check("disk", state, "little [room]", "make more" if state != "ok" else "")
    monkeypatch.setattr("lsi_ray.cli.doctor.examine", lambda *_: [check])
    config = tmp_path / "c.yaml"
    config.write_text(json.dumps(SIMULATED))
    shown = CliRunner().invoke(app, ["doctor", "-c", str(config)])
    assert shown.exit_code == code
    assert "little [room]" in shown.output
    told = CliRunner().invoke(app, ["doctor", "-c", str(config), "--json"])
    assert told.exit_code == code
    assert json.loads(told.stdout)["checks"][0] == {
        "name": "disk",
        "state": state,
        "found": "little [room]",
        "advice": check.advice,
    }


def test_the_child_that_imports_vllm_says_why_it_could_not(monkeypatch, tmp_path):
    broken = Path(tmp_path / "python")
    broken.write_text("#!/bin/sh\necho 'ImportError: libcudart.so.12' >&2\nexit 1\n")
    broken.chmod(0o755)
    monkeypatch.setattr("sys.executable", str(broken))
    assert software.look_at_vllm().error == "ImportError: libcudart.so.12"
    broken.write_text(
        '#!/bin/sh\necho noise\necho \'{"vllm": "1", "torch": "2", "cuda": "", "gpus": 0, "missing": ["x"]}\'\n'
    )
    assert software.look_at_vllm() == Health("1", "2", "", 0, ("x",))
