from __future__ import annotations

import hashlib
import json
import threading
from pathlib import Path

import pytest

from lsi_ray.engine.vllm.tiny import build_tiny_model, ensure_tiny_model


def digests(folder: Path) -> dict[str, str]:
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in folder.iterdir()}


def test_every_build_writes_the_same_bytes(tmp_path: Path) -> None:
    first, second = build_tiny_model(tmp_path / "a"), build_tiny_model(tmp_path / "b")
    assert digests(first) == digests(second)
    assert digests(first).keys() >= {"config.json", "model.safetensors", "tokenizer.json", "chat_template.jinja"}


def test_a_folder_that_is_there_is_left_alone(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    (folder / "config.json").write_text("mine")
    assert build_tiny_model(folder) == folder
    assert (folder / "config.json").read_text() == "mine"


def test_a_folder_with_something_else_in_it_is_not_replaced(tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "thesis.txt").write_text("years of work")
    with pytest.raises(OSError, match="not empty"):
        build_tiny_model(tmp_path / "model")
    assert [path.name for path in tmp_path.rglob("*")] == ["model", "thesis.txt"]


def test_builds_at_the_same_time_end_in_one_complete_folder(tmp_path: Path) -> None:
    target, expected = tmp_path / "model", digests(build_tiny_model(tmp_path / "alone"))
    built: list[Path] = []
    threads = [threading.Thread(target=lambda: built.append(build_tiny_model(target))) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert built == [target] * 4
    assert digests(target) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["alone", "model"]


def test_the_cache_folder_follows_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LSI_CACHE", str(tmp_path / "cache"))
    folder = ensure_tiny_model()
    assert tmp_path / "cache" / "models" in folder.parents
    assert (folder / "model.safetensors").is_file()


def test_the_config_names_tokens_of_the_tokenizer(tmp_path: Path) -> None:
    folder = build_tiny_model(tmp_path / "model")
    config = json.loads((folder / "config.json").read_text())
    added = {
        token["content"]: token["id"] for token in json.loads((folder / "tokenizer.json").read_text())["added_tokens"]
    }
    assert config["image_token_id"] == added["<|image_pad|>"]
    assert config["video_token_id"] == added["<|video_pad|>"]
    assert config["eos_token_id"] == added["<|im_end|>"]
    assert max(added.values()) == config["vocab_size"] - 1
