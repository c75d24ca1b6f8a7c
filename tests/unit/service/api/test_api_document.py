"""The OpenAPI document is true: whatever schemathesis makes of it, each answer is one that the document declares.

A valid request may still be refused, because a document cannot say which models are served or how long a URL lives:
that one check is left out.
"""

from __future__ import annotations

import json
import re
import time

import schemathesis
from api_requests import FAST, Clock, lsi_body
from fake_backend import ALICE, FakeBackend
from fastapi.testclient import TestClient
from hypothesis import HealthCheck, Phase, settings
from lsi_contract import ERROR_TYPES
from schemathesis.checks import ensure_resource_availability, positive_data_acceptance, use_after_free
from schemathesis.openapi import from_asgi

from lsi_ray.service.api.app import create_app
from lsi_ray.service.api.errors import RULES
from lsi_ray.service.api.settings import ApiSettings

HEADERS = {"Authorization": f"Bearer {ALICE}"}
LEFT_OUT = [positive_data_acceptance, use_after_free, ensure_resource_availability]


def make_schema() -> schemathesis.BaseSchema:
    """With data behind it, so that not every id is unknown; bodies of any size, since 413 counts as acceptance."""
    backend = FakeBackend(time.time)
    app = create_app(backend, ApiSettings(rates=FAST, max_body_bytes=2**26))
    http = TestClient(app, headers=HEADERS)
    assert http.post("/v1/inference/batches", json=lsi_body(Clock(time.time()))).status_code == 201
    return from_asgi("/openapi.json", app)


schema = make_schema()


@schema.parametrize()
@settings(
    max_examples=6,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_declared(case: schemathesis.Case) -> None:
    case.call_and_validate(headers=HEADERS, excluded_checks=LEFT_OUT)


def test_every_error_code_has_a_type_of_lsis_schema_and_a_declared_status() -> None:
    declared = {int(status) for status in schema.raw_schema["paths"]["/v1/batches"]["post"]["responses"]}
    declared |= {405, 410, 415}  # where they can happen
    assert {rule.lsi for rule in RULES.values()} <= set(ERROR_TYPES)
    assert {rule.status for rule in RULES.values()} <= declared


def test_the_document_needs_no_token_and_is_whole() -> None:
    text = TestClient(schema.app).get("/openapi.json").text
    document = json.loads(text)
    assert document["info"]["title"] == "lsi-ray"
    named = set(re.findall(r"#/components/schemas/(\w+)", text))
    assert named == document["components"]["schemas"].keys()
