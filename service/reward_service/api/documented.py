"""The OpenAPI document: what FastAPI derives from the routes, with our errors and the refusals at the door."""

from typing import Any

from fastapi import FastAPI

from reward_service.api.problem import documented
from reward_service.api.security import SCHEME_DOCUMENTS
from reward_service.schemas import Problem

REFUSED = (400, 408, 413, 415, 422, 429, 431)
"""How any request may be refused before its route sees it."""
REFUSED_KEYS = (401, 403)


class Documented(FastAPI):
    """FastAPI whose OpenAPI document describes our errors instead of FastAPI's."""

    def openapi(self) -> dict[str, Any]:
        """The document; refusals that every operation shares stand in it once."""
        if self.openapi_schema:
            return self.openapi_schema
        document = super().openapi()
        components = document["components"]
        components["schemas"]["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            components["schemas"].pop(unused, None)
        components["securitySchemes"] = SCHEME_DOCUMENTS
        refusals = documented(*REFUSED, *REFUSED_KEYS)
        components["responses"] = {_name(status): refusals[status] for status in sorted({*REFUSED, *REFUSED_KEYS})}
        for operations in document["paths"].values():
            for operation in operations.values():
                _add_refusals(operation)
        return document


def _add_refusals(operation: dict[str, Any]) -> None:
    responses = operation["responses"]
    for status in (*REFUSED, *(REFUSED_KEYS if operation["security"] else ())):
        responses.setdefault(str(status), {"$ref": f"#/components/responses/{_name(status)}"})
    operation["responses"] = dict(sorted(responses.items()))


def _name(status: int) -> str:
    return f"Problem{status}"
