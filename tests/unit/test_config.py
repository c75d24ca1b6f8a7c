from __future__ import annotations

from pathlib import Path

import pytest

from lsi_ray.config import VllmEngine, default_config_path, load_config, parse_config
from lsi_ray.errors import ConfigError

FOLDER = Path(__file__).parents[2] / "configs"
# Those of the service are loaded by its own tests.
CONFIGS = sorted(path for path in FOLDER.glob("*.yaml") if path.stem not in ("deploy", "serve"))


@pytest.mark.parametrize("path", CONFIGS, ids=lambda path: path.stem)
def test_every_config_of_the_repository_loads(path: Path) -> None:
    config = load_config(path)
    assert config.model
    if isinstance(config.engine, VllmEngine):
        assert config.engine.gpus == (0 if config.engine.device == "cpu" else config.engine.gpus)
        assert config.engine.args["max_num_seqs"] >= 1


def test_the_embedded_default_is_the_tiny_model() -> None:
    assert default_config_path().exists()
    config = load_config(None)
    assert config.model == "lsi/tiny-vl"
    assert isinstance(config.engine, VllmEngine)
    assert config.engine.gpus == 0


def test_a_replica_takes_tensor_times_pipeline_parallel_gpus() -> None:
    engine = {"type": "vllm", "args": {"model": "m", "tensor_parallel_size": 4, "pipeline_parallel_size": 2}}
    assert parse_config({"model": "m", "engine": engine}, source="test").engine.gpus == 8


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"model": None}, "model"),
        ({"engin": {}}, "engin"),
        ({"engine": {"type": "vllm", "args": {}}}, "engine.args.model is missing"),
        ({"engine": {"type": "vllm", "args": {"model": "m", "trust_remote_code": True}}}, "trust_remote_code"),
        ({"engine": {"type": "other"}}, "engine"),
        ({"replicas": {"min": 3, "max": 2}}, "max 2 is below min 3"),
        ({"shard_rows": 0}, "shard_rows"),
    ],
)
def test_a_wrong_config_names_the_field(change: dict[str, object], named: str) -> None:
    good = {"model": "m", "engine": {"type": "simulated"}}
    with pytest.raises(ConfigError, match=named):
        parse_config({**good, **change}, source="test.yaml")


def test_a_missing_config_and_bad_yaml_are_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no such config"):
        load_config(tmp_path / "none.yaml")
    (tmp_path / "bad.yaml").write_text("a: [")
    with pytest.raises(ConfigError, match=r"bad\.yaml: not YAML"):
        load_config(tmp_path / "bad.yaml")
