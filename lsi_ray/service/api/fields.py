"""The fields that both surfaces take from a caller: their types, bounds and refusals."""

from __future__ import annotations

import base64
import binascii
from typing import Annotated, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, StringConstraints, field_validator

from lsi_ray.service.api.window import PATTERN, parse_window

Endpoint = Literal["/v1/chat/completions", "/v1/completions", "/v1/embeddings"]

_MIN_SECRET, _MAX_SECRET = 16, 256


def _window(text: str) -> str:
    parse_window(text)
    return text


Window = Annotated[
    str,
    AfterValidator(_window),
    Field(
        description="A whole number and `m`, `h`, `d` or `w`: `15m`, `24h`, `7d`, `2w`.",
        examples=["24h", "7d"],
        json_schema_extra={"pattern": PATTERN},
    ),
]
Url = Annotated[
    SecretStr,
    Field(
        max_length=8192,
        description="A pre-signed URL. It is read once, never shown again, and must stay valid until the window ends.",
        examples=["https://bucket.s3.eu-central-1.amazonaws.com/in.tar.gz?X-Amz-Signature=..."],
    ),
]
ModelId = Annotated[
    str, StringConstraints(min_length=1, max_length=256), Field(description="As in `GET /v1/inference/models`.")
]
FileId = Annotated[str, StringConstraints(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")]
MetadataKey = Annotated[str, StringConstraints(min_length=1, max_length=64)]
MetadataValue = Annotated[str, StringConstraints(max_length=512)]
Metadata = Annotated[
    dict[MetadataKey, MetadataValue], Field(max_length=16, description="At most 16 pairs of strings, for the caller.")
]
Priority = Annotated[int, Field(description="Among batches that end at the same time, higher ones run first.")]


class Incoming(BaseModel):
    """An unknown field is refused: a misspelt option that is silently ignored costs days."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, hide_input_in_errors=True)


class WebhookIn(Incoming):
    """Told of completed, failed, expired and cancelled batches, signed as OpenAI signs its webhooks."""

    url: Url
    secret: Annotated[
        SecretStr,
        Field(
            min_length=_MIN_SECRET,
            max_length=_MAX_SECRET,
            description="`whsec_` and base64, or at least 16 characters of text; never shown again.",
        ),
    ]

    @field_validator("secret")
    @classmethod
    def _decodes(cls, secret: SecretStr) -> SecretStr:
        text = secret.get_secret_value()
        if text.startswith("whsec_"):
            try:
                base64.b64decode(text.removeprefix("whsec_"), validate=True)
            except binascii.Error:
                raise ValueError("what follows whsec_ is not base64") from None
        return secret


class OutputExpiry(Incoming):
    """How long the files of results live, counted from their creation."""

    anchor: Literal["created_at"]
    seconds: Annotated[int, Field(ge=3600, le=2_592_000)]
