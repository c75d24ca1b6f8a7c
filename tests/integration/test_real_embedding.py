"""/v1/embeddings on the real vLLM: the tiny model as a pooling model."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import tarfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import yaml

from lsi_ray.archive.pack import pack_folder
from lsi_ray.config import default_config_path

pytestmark = pytest.mark.timeout(420)
MODEL = "lsi/tiny-vl"


def test_embeddings_of_texts_lists_and_tokens(tmp_path: Path) -> None:
    inputs: list[Any] = ["one text", "one text", "another text", ["one text", "another text"], [17, 18, 19], "one text"]
    rows = [_row(f"e{number}", {"input": value}) for number, value in enumerate(inputs)]
    rows[5]["body"]["encoding_format"] = "base64"
    chat = _row("chat", {"messages": [{"role": "user", "content": "hello"}]})
    output, error = _run(tmp_path, [*rows, {**chat, "url": "/v1/chat/completions"}])
    vectors = [[np.array(_vector(item)) for item in record["response"]["body"]["data"]] for record in output]
    assert np.allclose(vectors[0][0], vectors[1][0], atol=1e-5)
    assert np.allclose(vectors[0][0], vectors[5][0], atol=1e-5)
    assert not np.allclose(vectors[0][0], vectors[2][0], atol=1e-2)
    assert [len(one) for one in vectors] == [1, 1, 1, 2, 1, 1]
    assert np.allclose(vectors[3][1], vectors[2][0], atol=1e-5)
    assert output[4]["response"]["body"]["usage"]["prompt_tokens"] == 3
    assert [record["custom_id"] for record in error] == ["chat"]
    assert str(tmp_path) not in json.dumps(error)


def _row(custom_id: str, body: dict[str, Any]) -> dict[str, Any]:
    return {"custom_id": custom_id, "method": "POST", "url": "/v1/embeddings", "body": {"model": MODEL, **body}}


def _vector(item: dict[str, Any]) -> list[float]:
    value = item["embedding"]
    if isinstance(value, str):
        return [float(number) for number in np.frombuffer(base64.b64decode(value), "<f4")]
    return list(value)


def _run(folder: Path, rows: list[dict[str, Any]]) -> tuple[list[Any], list[Any]]:
    config = yaml.safe_load(default_config_path().read_text())
    config["engine"]["args"] |= {"runner": "pooling", "convert": "embed"}
    (folder / "embed.yaml").write_text(yaml.safe_dump(config))
    (folder / "batch").mkdir()
    (folder / "batch" / "jobs.jsonl").write_text("\n".join(map(json.dumps, rows)))
    pack_folder(folder / "batch", folder / "in.tar")
    words = ["run", folder / "in.tar", "-o", folder / "out.tar.gz", "-c", folder / "embed.yaml"]
    done = subprocess.run(
        [sys.executable, "-m", "lsi_ray", *map(str, words)],
        env={**os.environ, "LSI_CACHE": str(folder / "cache")},
        capture_output=True,
        text=True,
        timeout=400,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    with tarfile.open(folder / "out.tar.gz") as tar:
        return _lines(tar, "output.jsonl"), _lines(tar, "error.jsonl")


def _lines(tar: tarfile.TarFile, name: str) -> list[Any]:
    file = tar.extractfile(name)
    assert file is not None
    return [json.loads(line) for line in file]
