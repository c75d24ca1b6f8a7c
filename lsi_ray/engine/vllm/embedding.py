"""Embeddings: rendering of `/v1/embeddings` and its response body. Shares everything else with generation."""

from __future__ import annotations

import base64
import time
from typing import Any

import msgspec
import numpy as np

from lsi_ray.archive.rows import Request
from lsi_ray.engine.vllm.imports import EmbeddingCompletionRequest, OnlineRenderer
from lsi_ray.engine.vllm.wire import Generated, Prompt, Rendered
from lsi_ray.errors import RowError


async def render_embedding(online: OnlineRenderer, runner_type: str, request: Request) -> Rendered:
    if runner_type != "pooling":
        raise RowError("invalid_url", "this model does not embed: it serves /v1/chat/completions", param="url")
    embedding = EmbeddingCompletionRequest.model_validate(request.body)
    inputs = await online.preprocess_completion(
        embedding, prompt_input=embedding.input, prompt_embeds=None, skip_mm_cache=True
    )
    prompts = tuple(Prompt(one, embedding.to_pooling_params(), {}) for one in inputs)
    return Rendered(request.url, prompts, embedding.encoding_format)


def embedding_body(generated: Generated, request_id: str, model: str) -> bytes:
    tokens = sum(output.prompt_tokens for output in generated.outputs)
    body = {
        "id": request_id,
        "object": "list",
        "created": int(time.time()),
        "model": model,
        "data": [
            {"index": index, "object": "embedding", "embedding": _encode(output.embedding, generated.request)}
            for index, output in enumerate(generated.outputs)
        ],
        "usage": {"prompt_tokens": tokens, "total_tokens": tokens, "completion_tokens": 0},
    }
    return msgspec.json.encode(body)


def _encode(vector: Any, encoding_format: str) -> list[float] | str:
    values = np.asarray(vector, dtype="<f4")
    if encoding_format == "base64":
        return base64.b64encode(values.tobytes()).decode()
    return [float(value) for value in values]
