"""The committed OpenAPI document is the application's."""

from pathlib import Path

import yaml

from reward_service.api.app import routed_app

DOCUMENT = Path(__file__).parents[1] / "openapi.yaml"


def test_openapi_yaml_equals_the_application() -> None:
    committed = yaml.safe_load(DOCUMENT.read_text(encoding="utf-8"))
    assert committed == routed_app().openapi(), "run `make openapi`"


def test_every_reference_in_the_document_resolves() -> None:
    document = routed_app().openapi()
    schemas = document["components"]["schemas"]
    text = yaml.safe_dump(document)
    referred = {line.split("/")[-1].strip("' ") for line in text.splitlines() if "#/components/schemas/" in line}
    assert referred <= set(schemas)


def test_every_operation_documents_its_errors_as_problems() -> None:
    document = routed_app().openapi()
    shared = document["components"]["responses"]
    for path, operations in document["paths"].items():
        for method, operation in operations.items():
            failures = {s: r for s, r in operation["responses"].items() if s >= "400"}
            assert failures, (method, path)
            for status, given in failures.items():
                response = shared[given["$ref"].rsplit("/", 1)[1]] if "$ref" in given else given
                if (path, status) != ("/ready", "503"):
                    assert set(response["content"]) == {"application/problem+json"}, (method, path, status)
