"""The fields of vLLM's requests that a row may not use, each with its reason, which the error tells.

A field in neither this table nor the allowlist of `fields` is refused all the same. The table is there so that a test
(tests/integration/test_vllm_fields.py) finds what a new vLLM has learned to accept and nobody has thought about.
"""

from __future__ import annotations

_TEMPLATE = "the prompt is what the model's own chat template makes of the messages"
_SCHEMA = "write response_format with a json_schema"
_OURS = "it is set by the service for every row"
_PLUGIN = "what it means is up to extensions of the engine"
_TENSORS = "tensors of strangers are not read"
_FORM = "answers have the form of OpenAI's API"
_STREAM = "nothing is streamed in a batch"
_OTHER = "this endpoint does not take it"
_DECODING = "this way of decoding is not offered"

_REASONS: dict[str, tuple[str, ...]] = {
    _TEMPLATE: (
        "chat_template",
        "chat_template_kwargs",
        "add_generation_prompt",
        "continue_final_message",
        "add_special_tokens",
        "documents",
    ),
    _SCHEMA: (
        "structured_outputs",
        "guided_json",
        "guided_regex",
        "guided_choice",
        "guided_grammar",
        "guided_decoding_backend",
        "guided_whitespace_pattern",
        "structural_tag",
    ),
    _OURS: ("cache_salt", "priority", "request_id", "session_id"),
    _PLUGIN: (
        "vllm_xargs",
        "extra_body",
        "extra_args",
        "logits_processors",
        "kv_transfer_params",
        "ec_transfer_params",
        "routed_experts_prompt_start",
    ),
    _TENSORS: ("prompt_embeds", "mm_payload", "return_mm_kwargs"),
    "adapters are the operator's, and are asked for as the model": (
        "lora_request",
        "lora_path",
        "lora_name",
        "lora_id",
    ),
    "code and weights are the operator's": ("trust_remote_code", "revision", "tokenizer", "hf_token"),
    _FORM: (
        "return_prompt_text",
        "return_token_ids",
        "return_token_offsets",
        "return_tokens_as_token_ids",
        "prompt_logprobs",
        "embed_dtype",
        "endianness",
    ),
    _STREAM: ("stream_options", "stream_interval"),
    _DECODING: (
        "use_beam_search",
        "length_penalty",
        "best_of",
        "bad_words",
        "allowed_token_ids",
        "logprob_token_ids",
        "repetition_detection",
        "thinking_token_budget",
        "watermarking",
        "suffix",
    ),
    "a prompt that is too long is an error, not cut": ("truncate_prompt_tokens", "truncation_side"),
    "write tools and tool_choice": ("functions", "function_call"),
    "how the model pools is the operator's": ("use_activation", "padding"),
    _OTHER: ("echo", "messages", "media_io_kwargs", "mm_processor_kwargs"),
}

REFUSED: dict[str, str] = {name: reason for reason, names in _REASONS.items() for name in names}
