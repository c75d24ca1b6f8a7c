"""Models with random weights, so that the real vLLM answers text, images and video on any machine.

The architecture is Qwen2.5-VL (Qwen/Qwen2.5-VL-7B-Instruct's, which has 28 layers of 3584). `tiny` has 2 layers of 256,
2.6 million float32 parameters in 10 MB: what is around the engine shows. `small` has 12 layers of 768, 92 million in
367 MB: on two CPU cores the engine's arithmetic outweighs the rest, as on a GPU.

The words they answer mean nothing, but they depend on the whole prompt and on every pixel: matrices drawn with std
4/sqrt(fan_in) gave 40 different greedy answers to 40 images (of `tiny`), where the usual 0.02 gave one.

Invariants: the same bytes in every build (fixed seed, fixed text); a folder that exists is complete (built aside, then
renamed). Nothing here imports torch, transformers or vllm: a build takes about a second, of either.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MODEL_ID = "lsi/tiny-vl"
SMALL_MODEL_ID = "lsi/small-vl"

_SEED = 20_251
_VOCAB, _HEAD, _PATCH, _MERGE = 1024, 64, 14, 2


@dataclass(frozen=True, slots=True)
class _Size:
    version: str
    """The folder's name: change it with anything below that changes the bytes."""
    hidden: int
    layers: int
    heads: int
    kv_heads: int
    mlp: int
    vision_hidden: int
    vision_layers: int
    vision_heads: int
    vision_mlp: int


_TINY = _Size("tiny-vl-v1", 256, 2, 4, 2, 512, 128, 2, 4, 256)
_SMALL = _Size("small-vl-v1", 768, 12, 12, 4, 2048, 384, 6, 6, 1024)
_SIZES = {MODEL_ID: _TINY, SMALL_MODEL_ID: _SMALL}

# At the end of the vocabulary, in this order. The tool tags are plain added tokens, as with Qwen2.5 proper, so that
# skip_special_tokens leaves them for the tool parser.
_SPECIAL = (
    "<|endoftext|>",
    "<|im_start|>",
    "<|im_end|>",
    "<|vision_start|>",
    "<|vision_end|>",
    "<|vision_pad|>",
    "<|image_pad|>",
    "<|video_pad|>",
)
_TAGS = ("<tool_call>", "</tool_call>")

# The split of Qwen2's tokenizer: transformers builds it into its Qwen2Tokenizer, so training has to use the same.
_SPLIT = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
)

_TEXT = """
A batch is a folder of requests. Each request asks about text, an image, several images, or a video, and each one gets
exactly one answer. The first picture shows a red circle on a white table; the second shows a blue square beside a green
triangle; the third shows nothing but yellow light. What do you see? Describe the image in one sentence. Which colour is
the largest shape? How many objects are there? Answer with a single word, yes or no. Read the number on the sign and
say whether the two images show the same place. Summarise the following document in three points, then translate it.
You are a helpful assistant. You answer briefly and truthfully. You may call one or more functions to help with the
question of the user. The function takes a location and returns the weather: temperature, wind, rain and clouds.
The weather in London is cold today, in Paris it is warm, in Berlin there is snow, and in Tokyo the sun is shining.
def main(items): return [item for item in items if item is not None and item.name != "none"]
{"name": "get_weather", "arguments": {"city": "Paris", "unit": "celsius", "days": 3, "detailed": true, "note": null}}
{"type": "object", "properties": {"colour": {"type": "string", "enum": ["red", "green", "blue"]}}, "required": []}
In the morning the old train left the station slowly, crossed the river near the mill, and climbed to the mountains.
People waited under the trees while children played with a small brown dog; nobody noticed the letter on the ground.
Later that evening, when everything had become quiet, she opened the window and looked at the stars above the town.
Science begins with careful measurement: length, weight, time, speed, energy and temperature. A theory that cannot be
tested against an experiment explains nothing. Numbers such as 0, 1, 2, 10, 64, 100, 256, 1000 and 3.14 appear often.
The engine reads tokens, computes attention over every position, and writes the next token until the answer is complete.
Workers lease rows, render them, generate, and commit; after a failure the rows are handed out again, once each.
Monday Tuesday Wednesday Thursday Friday Saturday Sunday January February March April May June July August September
October November December spring summer autumn winter north south east west left right above below before after between
one two three four five six seven eight nine ten hundred thousand black white orange purple pink grey round long short
house street garden school market kitchen bottle paper book music water bread apple lemon cheese coffee sugar horse bird
Der schnelle Zug hält nicht an jedem Bahnhof. La petite maison près du lac est très belle. El niño come una manzana.
"""

_TEMPLATE = """\
{%- if tools %}
{%- set functions %}
{{- '\\n\\n# Tools\\nFunctions:' }}
{%- for tool in tools %}{{- '\\n' + (tool | tojson) }}{%- endfor %}
{{- '\\nCall one with <tool_call>\\n{"name": NAME, "arguments": OBJECT}\\n</tool_call>' }}
{%- endset %}
{%- endif %}
{%- for message in messages %}
{%- if loop.first and message.role != 'system' %}
{{- '<|im_start|>system\\nYou are a helpful assistant.' + (functions or '') + '<|im_end|>\\n' }}
{%- endif %}
{{- '<|im_start|>' + ('user' if message.role == 'tool' else message.role) + '\\n' }}
{%- if message.role == 'tool' %}{{- '<tool_response>\\n' }}{%- endif %}
{%- if message.content is string %}
{{- message.content }}
{%- elif message.content %}
{%- for part in message.content %}
{%- if part.type == 'image' or part.type == 'image_url' %}{{- '<|vision_start|><|image_pad|><|vision_end|>' }}
{%- elif part.type == 'video' or part.type == 'video_url' %}{{- '<|vision_start|><|video_pad|><|vision_end|>' }}
{%- elif part.type == 'text' %}{{- part.text }}
{%- endif %}
{%- endfor %}
{%- endif %}
{%- for call in message.tool_calls or [] %}
{%- set function = call.function or call %}
{%- set arguments = function.arguments if function.arguments is string else function.arguments | tojson %}
{{- '\\n<tool_call>\\n{"name": "' + function.name + '", "arguments": ' + arguments + '}\\n</tool_call>' }}
{%- endfor %}
{%- if message.role == 'tool' %}{{- '\\n</tool_response>' }}{%- endif %}
{%- if loop.first and message.role == 'system' %}{{- functions or '' }}{%- endif %}
{{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}{{- '<|im_start|>assistant\\n' }}{%- endif %}
"""


def ensure_model(model: str) -> str:
    """The folder of a model of this file, built at the first call; any other name or path as it is."""
    size = _SIZES.get(model)
    return model if size is None else str(_build(_cache_folder() / "models" / size.version, size))


def ensure_tiny_model() -> Path:
    """The folder of the model in the user's cache (`LSI_CACHE` overrides where that is), built at the first call."""
    return Path(ensure_model(MODEL_ID))


def build_tiny_model(folder: Path) -> Path:
    """Write the model to `folder`, unless it is there, and return `folder`. Safe against concurrent builds."""
    return _build(folder, _TINY)


def _build(folder: Path, size: _Size) -> Path:
    if (folder / "model.safetensors").is_file():
        return folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    aside = Path(tempfile.mkdtemp(prefix=f".{folder.name}-", dir=folder.parent))
    try:
        _write(aside, size)
        aside.chmod(0o755)
        os.rename(aside, folder)
    except OSError:
        # Another process was faster: rename does not replace a folder that has files in it.
        if not (folder / "model.safetensors").is_file():
            raise
    finally:
        shutil.rmtree(aside, ignore_errors=True)
    return folder


def _cache_folder() -> Path:
    if chosen := os.environ.get("LSI_CACHE"):
        return Path(chosen).expanduser()
    if sys.platform == "darwin":
        return Path.home() / "Library" / "Caches" / "lsi"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "lsi"


def _write(folder: Path, size: _Size) -> None:
    from safetensors.numpy import save_file

    ids = _write_tokenizer(folder)
    for name, content in _configs(ids, size).items():
        (folder / name).write_text(json.dumps(content, indent=2, sort_keys=True) + "\n", encoding="utf-8")
    (folder / "chat_template.jinja").write_text(_TEMPLATE, encoding="utf-8")
    save_file(dict(_weights(ids, size)), folder / "model.safetensors", metadata={"format": "pt"})


def _write_tokenizer(folder: Path) -> dict[str, int]:
    """Train it, write tokenizer.json, vocab.json and merges.txt, and return the ids of all tokens."""
    from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, trainers

    tokenizer = Tokenizer(models.BPE())
    tokenizer.normalizer = normalizers.NFC()
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(_SPLIT), behavior="isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    added = len(_SPECIAL) + len(_TAGS)
    trainer = trainers.BpeTrainer(
        vocab_size=_VOCAB - added,
        min_frequency=1,
        initial_alphabet=sorted(pre_tokenizers.ByteLevel.alphabet()),
        show_progress=False,
    )
    tokenizer.train_from_iterator(_TEXT.splitlines(keepends=True), trainer)
    tokenizer.model.save(str(folder))
    tokenizer.add_special_tokens([AddedToken(token, normalized=False, special=True) for token in _SPECIAL])
    tokenizer.add_tokens([AddedToken(token, normalized=False) for token in _TAGS])
    tokenizer.save(str(folder / "tokenizer.json"))
    ids: dict[str, int] = tokenizer.get_vocab(with_added_tokens=True)
    assert len(ids) == _VOCAB == max(ids.values()) + 1, len(ids)
    return ids


def _configs(ids: dict[str, int], size: _Size) -> dict[str, dict[str, Any]]:
    images = {
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073],
        "image_std": [0.26862954, 0.26130258, 0.27577711],
        "merge_size": _MERGE,
        "patch_size": _PATCH,
        "processor_class": "Qwen2_5_VLProcessor",
        "resample": 3,
        "temporal_patch_size": 2,
    }
    return {
        "config.json": _model_config(ids, size),
        "generation_config.json": {"eos_token_id": ids["<|im_end|>"], "pad_token_id": ids["<|endoftext|>"]},
        # At most 1,280 tokens an image, and 64 tokens for each pair of frames.
        "preprocessor_config.json": images
        | {"image_processor_type": "Qwen2VLImageProcessor", "size": _pixels(4, 1280)},
        "video_preprocessor_config.json": images
        | {"do_sample_frames": False, "video_processor_type": "Qwen2VLVideoProcessor", "size": _pixels(4, 64)},
        "tokenizer_config.json": _tokenizer_config(ids),
    }


def _pixels(least: int, most: int) -> dict[str, int]:
    """Bounds on a resized picture, in tokens of 28x28 pixels."""
    area = (_PATCH * _MERGE) ** 2
    return {"shortest_edge": least * area, "longest_edge": most * area}


def _model_config(ids: dict[str, int], size: _Size) -> dict[str, Any]:
    return {
        "architectures": ["Qwen2_5_VLForConditionalGeneration"],
        "model_type": "qwen2_5_vl",
        "dtype": "float32",
        "torch_dtype": "float32",
        "vocab_size": _VOCAB,
        "hidden_size": size.hidden,
        "intermediate_size": size.mlp,
        "num_hidden_layers": size.layers,
        "num_attention_heads": size.heads,
        "num_key_value_heads": size.kv_heads,
        "hidden_act": "silu",
        "max_position_embeddings": 32_768,
        "rms_norm_eps": 1e-6,
        "rope_theta": 1_000_000.0,
        "rope_scaling": {"type": "mrope", "rope_type": "default", "mrope_section": [8, 12, 12]},
        "tie_word_embeddings": False,
        "use_sliding_window": False,
        "bos_token_id": ids["<|endoftext|>"],
        "eos_token_id": ids["<|im_end|>"],
        "image_token_id": ids["<|image_pad|>"],
        "video_token_id": ids["<|video_pad|>"],
        "vision_start_token_id": ids["<|vision_start|>"],
        "vision_end_token_id": ids["<|vision_end|>"],
        "vision_token_id": ids["<|vision_pad|>"],
        "vision_config": {
            "model_type": "qwen2_5_vl",
            "depth": size.vision_layers,
            "hidden_size": size.vision_hidden,
            "intermediate_size": size.vision_mlp,
            "num_heads": size.vision_heads,
            "out_hidden_size": size.hidden,
            "hidden_act": "silu",
            "in_channels": 3,
            "in_chans": 3,
            "patch_size": _PATCH,
            "spatial_patch_size": _PATCH,
            "spatial_merge_size": _MERGE,
            "temporal_patch_size": 2,
            "tokens_per_second": 2,
            "window_size": 112,
            "fullatt_block_indexes": [size.vision_layers - 1],
        },
    }


def _tokenizer_config(ids: dict[str, int]) -> dict[str, Any]:
    def entry(token: str, special: bool) -> dict[str, Any]:
        plain = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
        return {"content": token, "special": special} | plain

    special = {str(ids[token]): entry(token, True) for token in _SPECIAL}
    tags = {str(ids[token]): entry(token, False) for token in _TAGS}
    return {
        "tokenizer_class": "Qwen2Tokenizer",
        "added_tokens_decoder": special | tags,
        "additional_special_tokens": list(_SPECIAL[1:]),
        "bos_token": None,
        "eos_token": "<|im_end|>",
        "pad_token": "<|endoftext|>",
        "unk_token": None,
        "clean_up_tokenization_spaces": False,
        "model_max_length": 32_768,
    }


def _weights(ids: dict[str, int], size: _Size) -> Iterator[tuple[str, NDArray[np.float32]]]:
    rng = np.random.Generator(np.random.Philox(_SEED))
    for name, shape in _shapes(size):
        if name.endswith("bias"):
            yield name, np.zeros(shape, np.float32)
        elif len(shape) == 1:
            yield name, np.ones(shape, np.float32)  # a norm
        else:
            matrix = rng.standard_normal(shape, np.float32) * np.float32(4 / math.sqrt(math.prod(shape[1:])))
            if name == "lm_head.weight":
                matrix[_unspoken(ids)] = 0
            yield name, matrix


def _unspoken(ids: dict[str, int]) -> list[int]:
    """Tokens that no answer holds: a logit of 0 hardly ever wins against nearly 1,000 others drawn with std 4.

    Placeholders of images, and control characters, which the byte-level alphabet writes as U+0100 and following.
    Incomplete UTF-8 stays possible, as it is with any real model.
    """
    controls = [chr(0x100 + byte) for byte in range(32) if byte != ord("\n")]
    return [ids[token] for token in (*_SPECIAL, *controls) if token != "<|im_end|>"]


def _shapes(size: _Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    """Names and shapes as in the checkpoints that Qwen published, which both transformers 4 and 5 and vLLM read."""
    yield "model.embed_tokens.weight", (_VOCAB, size.hidden)
    for layer in range(size.layers):
        at = f"model.layers.{layer}."
        yield from _linear(at + "self_attn.q_proj", size.heads * _HEAD, size.hidden)
        yield from _linear(at + "self_attn.k_proj", size.kv_heads * _HEAD, size.hidden)
        yield from _linear(at + "self_attn.v_proj", size.kv_heads * _HEAD, size.hidden)
        yield at + "self_attn.o_proj.weight", (size.hidden, size.heads * _HEAD)
        yield at + "mlp.gate_proj.weight", (size.mlp, size.hidden)
        yield at + "mlp.up_proj.weight", (size.mlp, size.hidden)
        yield at + "mlp.down_proj.weight", (size.hidden, size.mlp)
        yield at + "input_layernorm.weight", (size.hidden,)
        yield at + "post_attention_layernorm.weight", (size.hidden,)
    yield "model.norm.weight", (size.hidden,)
    yield "lm_head.weight", (_VOCAB, size.hidden)
    yield from _vision_shapes(size)


def _vision_shapes(size: _Size) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield "visual.patch_embed.proj.weight", (size.vision_hidden, 3, 2, _PATCH, _PATCH)
    for layer in range(size.vision_layers):
        at = f"visual.blocks.{layer}."
        yield from _linear(at + "attn.qkv", 3 * size.vision_hidden, size.vision_hidden)
        yield from _linear(at + "attn.proj", size.vision_hidden, size.vision_hidden)
        yield from _linear(at + "mlp.gate_proj", size.vision_mlp, size.vision_hidden)
        yield from _linear(at + "mlp.up_proj", size.vision_mlp, size.vision_hidden)
        yield from _linear(at + "mlp.down_proj", size.vision_hidden, size.vision_mlp)
        yield at + "norm1.weight", (size.vision_hidden,)
        yield at + "norm2.weight", (size.vision_hidden,)
    merged = size.vision_hidden * _MERGE**2
    yield "visual.merger.ln_q.weight", (size.vision_hidden,)
    yield from _linear("visual.merger.mlp.0", merged, merged)
    yield from _linear("visual.merger.mlp.2", size.hidden, merged)


def _linear(name: str, rows: int, columns: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", (rows, columns)
    yield f"{name}.bias", (rows,)
