"""The cluster files against the schema of the Ray that is installed, and what they promise: no open port, no secret."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

from lsi_ray.service.front_door import guard

ROOT = Path(__file__).parents[3]
FILES = [ROOT / "cluster.yaml", ROOT / "deploy/gcp.yaml", ROOT / "deploy/on-premise.yaml"]
CLOUDS = FILES[:2]
GUARD = f"{guard.__module__}.{guard.__name__}"


def load(path: Path) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(path.read_text())
    return found


@pytest.fixture(params=FILES, ids=lambda path: path.stem)
def file(request: pytest.FixtureRequest) -> Path:
    return request.param


def test_ray_takes_it(file: Path) -> None:
    validate_config(prepare_config(load(file)))


def test_the_schema_does_refuse() -> None:
    config = prepare_config(load(FILES[0]))
    with pytest.raises(Exception, match="available_node_type"):
        validate_config({**config, "available_node_typs": {}})


def test_every_container_has_the_token_and_the_guard(file: Path) -> None:
    options = load(file)["docker"]["run_options"]
    assert "--env RAY_AUTH_MODE=token" in options
    assert "--env RAY_AUTH_TOKEN_PATH=/run/lsi/token" in options
    assert f"--env RAY_SERVE_HTTP_PROXY_CALLBACK_IMPORT_PATH={GUARD}" in options
    assert any(option.endswith(":/run/lsi:ro") for option in options)


def test_the_work_dir_is_one_folder_for_all(file: Path) -> None:
    assert any(option.endswith(":/var/lib/lsi") for option in load(file)["docker"]["run_options"])
    assert "mountpoint -q" in " ".join(load(file)["initialization_commands"])


def test_the_dashboard_keeps_to_the_loopback_and_the_head_runs_no_engine(file: Path) -> None:
    start = " ".join(load(file)["head_start_ray_commands"])
    assert "--dashboard-host=127.0.0.1" in start
    assert "--num-cpus=0" in start
    assert "0.0.0.0/0" not in file.read_text()


def test_nothing_secret_is_mounted_or_written_down(file: Path) -> None:
    assert load(file)["file_mounts"] == {}
    assert not re.search(r"AKIA[0-9A-Z]{16}|BEGIN [A-Z ]*PRIVATE KEY|RAY_AUTH_TOKEN=|password:", file.read_text())


@pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)
def test_gpus_come_from_zero_on_demand_and_on_spot(path: Path) -> None:
    config = load(path)
    types = config["available_node_types"]
    gpus = {name: node for name, node in types.items() if node["resources"].get("GPU")}
    assert {node["labels"]["lsi/capacity"] for node in gpus.values()} == {"spot", "on-demand"}
    assert all(node["min_workers"] == 0 for node in gpus.values())
    assert gpus["gpu-spot"]["priority"] > gpus["gpu-on-demand"]["priority"]
    assert types[config["head_node_type"]]["resources"]["CPU"] == 0
    assert config["provider"]["use_internal_ips"]
    assert sum(node.get("max_workers", 0) for node in types.values()) <= config["max_workers"]


def test_what_must_be_changed_is_marked(file: Path) -> None:
    text = file.read_text()
    for placeholder in ("registry.example.com", "ami-0123456789abcdef0", "my-project", "10.1.0."):
        for line in text.splitlines():
            if placeholder in line and "email" not in line:
                assert "CHANGE" in line, line
