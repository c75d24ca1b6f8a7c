"""Folders of full-size models without weights, for `load_format=dummy` on a host that cannot download anything.

config.json has the sizes that the model's publisher gives in the file of that name, so the engine computes what it
computes for the model; tokenizer, chat template and processor are those of lsi/small-vl, whose vocabulary of 1,024 is
the beginning of the model's. Answers mean nothing, and all prompts have their length in tokens.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from lsi_ray.config import cache_folder
from lsi_ray.engine.vllm.tiny import SMALL_MODEL_ID, ensure_model

_VERSION = 1
_FILES = (
    "chat_template.jinja",
    "generation_config.json",
    "merges.txt",
    "preprocessor_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "video_preprocessor_config.json",
    "vocab.json",
)
_TOKEN_PIXELS = 28 * 28
_QWEN25_VISION = {"depth": 32, "hidden_size": 1280, "num_heads": 16, "fullatt_block_indexes": [7, 15, 23, 31]}
_QWEN25 = {"vocab_size": 152_064, "max_position_embeddings": 128_000, "dtype": "bfloat16", "torch_dtype": "bfloat16"}
_MROPE = {"rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [16, 24, 24]}}

SHAPES: dict[str, dict[str, Any]] = {
    "Qwen/Qwen2.5-VL-7B-Instruct": {
        **_QWEN25,
        **_MROPE,
        "hidden_size": 3584,
        "intermediate_size": 18_944,
        "num_hidden_layers": 28,
        "num_attention_heads": 28,
        "num_key_value_heads": 4,
        "vision_config": {**_QWEN25_VISION, "intermediate_size": 3420, "out_hidden_size": 3584},
    },
    "Qwen/Qwen2.5-VL-32B-Instruct": {
        **_QWEN25,
        **_MROPE,
        "hidden_size": 5120,
        "intermediate_size": 27_648,
        "num_hidden_layers": 64,
        "num_attention_heads": 40,
        "num_key_value_heads": 8,
        "vision_config": {**_QWEN25_VISION, "intermediate_size": 3456, "out_hidden_size": 5120},
    },
    "Qwen/Qwen3-8B": {
        "architectures": ["Qwen3ForCausalLM"],
        "model_type": "qwen3",
        "dtype": "bfloat16",
        "torch_dtype": "bfloat16",
        "vocab_size": 151_936,
        "max_position_embeddings": 40_960,
        "hidden_size": 4096,
        "intermediate_size": 12_288,
        "num_hidden_layers": 36,
        "num_attention_heads": 32,
        "num_key_value_heads": 8,
        "head_dim": 128,
        "attention_bias": False,
        "rope_scaling": None,
    },
}
_TEXT_ONLY = {"Qwen/Qwen3-8B"}


def shape_folder(model: str) -> str:
    """The folder that stands for `model`, one of SHAPES; made at the first call."""
    folder = cache_folder() / "bench" / f"shape-{model.replace('/', '-')}-v{_VERSION}"
    if not (folder / "config.json").is_file():
        folder.mkdir(parents=True, exist_ok=True)
        _write(Path(ensure_model(SMALL_MODEL_ID)), folder, model)
    return str(folder)


def _write(small: Path, folder: Path, model: str) -> None:
    for name in _FILES:
        if not (model in _TEXT_ONLY and "preprocessor" in name) and (small / name).is_file():
            shutil.copyfile(small / name, folder / name)
    if model not in _TEXT_ONLY:
        _widen(folder / "preprocessor_config.json", 16_384)
        _widen(folder / "video_preprocessor_config.json", 768)
    (folder / "config.json").write_text(json.dumps(_config(small, model), indent=2) + "\n")


def _widen(path: Path, tokens: int) -> None:
    """The publisher's bound on the tokens of an image, or of a pair of frames."""
    content = json.loads(path.read_text())
    content["size"]["longest_edge"] = tokens * _TOKEN_PIXELS
    path.write_text(json.dumps(content, indent=2) + "\n")


def _config(small: Path, model: str) -> dict[str, Any]:
    base: dict[str, Any] = json.loads((small / "config.json").read_text())
    vision = base.pop("vision_config")
    if model in _TEXT_ONLY:
        base = {
            name: value for name, value in base.items() if not name.endswith("_token_id") or name[:3] in ("bos", "eos")
        }
        return base | SHAPES[model]
    return base | SHAPES[model] | {"vision_config": vision | SHAPES[model]["vision_config"]}
