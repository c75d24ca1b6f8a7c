"""`lsi tune` measures the real engine, in the child process of one candidate, with what its scheduler had to do."""

from __future__ import annotations

import io
import secrets
from pathlib import Path

import pytest
from archives import chat, write_archive
from PIL import Image

from lsi_ray.config import default_config_path, load_config
from lsi_ray.tune.candidate import Candidate
from lsi_ray.tune.runner import Runner
from lsi_ray.tune.sample import prepare


def picture() -> bytes:
    out = io.BytesIO()
    Image.effect_noise((320, 320), 80).convert("RGB").save(out, "PNG")
    return out.getvalue()


@pytest.mark.timeout(600)  # 280 s were seen at a load of 64
def test_a_real_engine_is_measured_with_its_load(tmp_path: Path) -> None:
    config = load_config(default_config_path())
    rows = [chat(f"r{n}", f"{secrets.token_hex(40)} {n}", max_tokens=8, model=config.model) for n in range(48)]
    rows[7] = chat("image", "What is this?", "a.png", max_tokens=8, model=config.model)  # travels in another way
    archive = write_archive(tmp_path / "in.tar", rows, {"a.png": picture()})
    sample = prepare(archive, False, config, 48, 0, tmp_path)
    assert (sample.rows, sample.of) == (48, 48)
    runner = Runner(config, tmp_path, seconds=4.0, render_s=60.0, limit_s=550.0)

    done = runner.measure(Candidate((("max_num_seqs", 16),)), 0.0)
    assert done.failure is None, done.failure
    assert done.rows_per_s > 0
    assert done.rows >= 16
    assert done.output_tokens_per_s / done.rows_per_s <= 8.0 + 1e-6
    assert done.prompt_tokens_per_s > done.output_tokens_per_s
    assert done.load.running_max == 16
    assert done.load.kv_tokens > 4096
    assert 0 < done.load.kv_used_max < 1
    assert done.effective["max_num_seqs"] == 16
    assert done.effective["max_num_batched_tokens"] == 4096
    assert done.engine["name"] == "vllm"
