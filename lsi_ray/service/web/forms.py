"""What a form of a page sends, once it has shown that it is one of ours."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Annotated, TypeVar
from urllib.parse import parse_qsl

from fastapi import Depends, Request
from pydantic import BaseModel, ValidationError

from lsi_ray.errors import LsiError
from lsi_ray.service.api.errors import Refusal, refusal_of
from lsi_ray.service.api.validation import refusal_of_validation
from lsi_ray.service.backend import ServiceError
from lsi_ray.service.web.cookie import check_form

_MOST_FIELDS = 32
Model = TypeVar("Model", bound=BaseModel)


class FormError(ServiceError):
    """Fields that are wrong, in the words for whom filled them in."""

    def __init__(self, refusal: Refusal) -> None:
        super().__init__(refusal.code, refusal.message, param=refusal.param)
        self.refusal = refusal


def fields_of(body: bytes, kind: str) -> dict[str, str]:
    """Of a form that was not filled in, an empty field is none."""
    if kind.partition(";")[0].strip().lower() != "application/x-www-form-urlencoded":
        raise ServiceError("unsupported_media_type", "Send the form of the page")
    try:
        pairs = parse_qsl(body.decode(), keep_blank_values=True, max_num_fields=_MOST_FIELDS)
    except ValueError:
        raise ServiceError("invalid_request", "The form cannot be read") from None
    return {name: text.strip() for name, text in pairs if text.strip()}


async def _form(request: Request) -> dict[str, str]:
    fields = fields_of(await request.body(), request.headers.get("content-type", ""))
    check_form(request.scope, fields.pop("csrf", ""))
    return fields


FormOf = Annotated[dict[str, str], Depends(_form)]
"""The form's fields by name, stripped; those left empty are not there."""


def read_form(
    model: type[Model], fields: Mapping[str, str], names: Mapping[str, Callable[[str], object]] | None = None
) -> Model:
    """`names`: how to read what is not text. Raises FormError."""
    values = {name: (names or {}).get(name, str)(text) for name, text in fields.items()}
    try:
        return model.model_validate(values)
    except ValidationError as error:
        raise FormError(
            refusal_of_validation([{**one, "loc": ("body", *one["loc"])} for one in error.errors()])
        ) from None


def whole_number(text: str) -> object:
    """What is none is the model's to refuse, with its name."""
    sign, digits = text[:1] == "-", text.removeprefix("-")
    return int(digits[:10]) * (-1 if sign else 1) if digits.isascii() and digits.isdecimal() else text


def is_checked(text: str) -> object:
    return text == "on"


def refusal_to_show(error: LsiError) -> Refusal:
    return error.refusal if isinstance(error, FormError) else refusal_of(error)
