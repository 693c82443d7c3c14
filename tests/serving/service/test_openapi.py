"""Schemathesis: whatever the OpenAPI document allows or forbids is answered as the document says, without a 5xx."""

from typing import Any

import httpx
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.checks import not_a_server_error
from schemathesis.specs.openapi.checks import (
    content_type_conformance,
    response_headers_conformance,
    response_schema_conformance,
    status_code_conformance,
    unsupported_method,
)

from pbe.method.sampling import SAMPLERS
from pbe.serving.service.edit_fields import EditParameters
from tests.support.running_service import ALICE, RunningService, SmallEdit

CHECKS = [
    not_a_server_error, status_code_conformance, content_type_conformance, response_headers_conformance,
    response_schema_conformance, unsupported_method,
]  # fmt: skip
OPERATIONS = (
    "POST /v1/images/edits", "GET /v1/images/results/{picture_id}", "GET /v1/jobs", "GET /v1/jobs/{job_id}",
    "DELETE /v1/jobs/{job_id}", "GET /v1/jobs/{job_id}/result", "GET /v1/models", "GET /v1/models/{model_id}",
    "GET /healthz", "GET /readyz", "GET /metrics",
)  # fmt: skip
OPEN = ("GET /healthz", "GET /readyz")
LIMITS = settings(derandomize=True, deadline=None, database=None, suppress_health_check=list(HealthCheck))
SMALL = SmallEdit()

schemathesis.openapi.format("binary", st.sampled_from([SMALL.source, SMALL.mask, SMALL.exemplar, b"", b"no image"]))


@pytest.fixture(scope="module")
def document(service: RunningService) -> Any:
    return schemathesis.openapi.from_url(f"{service.url}/openapi.json")


@pytest.mark.parametrize("operation", OPERATIONS)
def test_answers_are_as_documented(document: Any, operation: str) -> None:
    method, path = operation.split()
    modes = list(GenerationMode) if "{" in path or method == "POST" else [GenerationMode.POSITIVE]
    for mode in modes:
        try_out(document[path][method].as_strategy(generation_mode=mode), 30 if method == "POST" else 6)


def test_any_parameters_with_good_pictures(document: Any) -> None:
    def with_pictures(case: schemathesis.Case) -> schemathesis.Case:
        for name in ("regions", "reference_mask", "reference_image", "mask_image", "model", "guidance_interval"):
            case.body.pop(name, None)
        case.body |= {"image": [SMALL.source, SMALL.exemplar], "mask": SMALL.mask, "num_steps": 1}
        return case

    forms = document["/v1/images/edits"]["POST"].as_strategy().filter(lambda case: isinstance(case.body, dict))
    forms = forms.filter(lambda case: case.media_type == "multipart/form-data").map(with_pictures)
    assert {200, 202, 400} <= try_out(forms, 40)


def try_out(cases: Any, num_examples: int) -> set[int]:
    """Send examples of these cases, validate the answers, and return their statuses."""
    statuses = set()

    @given(case=cases)
    @settings(LIMITS, max_examples=num_examples)
    def send(case: schemathesis.Case) -> None:
        answer = case.call_and_validate(headers={"authorization": f"Bearer {ALICE}"}, checks=CHECKS)
        statuses.add(answer.status_code)

    send()
    return statuses


@pytest.mark.parametrize("operation", [operation for operation in OPERATIONS if operation not in OPEN])
def test_a_token_is_needed(service: RunningService, operation: str) -> None:
    method, path = operation.split()
    with service.client(None) as nobody:
        answer = nobody.request(method, path)
    assert answer.status_code == 401
    assert answer.json()["error"]["type"] == "authentication_error"


def test_every_operation_is_tried(alice: httpx.Client) -> None:
    paths = alice.get("/openapi.json").json()["paths"]
    assert {f"{method.upper()} {path}" for path, methods in paths.items() for method in methods} == set(OPERATIONS)


def test_the_samplers_are_those_of_the_method(alice: httpx.Client) -> None:
    form = alice.get("/openapi.json").json()["components"]["schemas"]["EditForm"]["properties"]
    assert form["sampler"]["enum"] == list(SAMPLERS)
    assert set(EditParameters.model_fields) <= form.keys()


@pytest.mark.parametrize("page", ["/docs", "/redoc"])
def test_the_pages_load_nothing_from_other_servers(alice: httpx.Client, page: str) -> None:
    html = alice.get(page).text
    loaded = [part.split('"')[0] for attribute in ('src="', 'href="') for part in html.split(attribute)[1:]]
    assert loaded
    for address in loaded:
        assert address.startswith("/static-offline-docs/")
        assert alice.get(address).status_code == 200
