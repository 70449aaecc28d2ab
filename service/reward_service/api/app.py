"""The FastAPI application over a started service."""

from typing import Any

from fastapi import FastAPI

from reward_service import __version__
from reward_service.api import problem
from reward_service.api.routes import baselines, catalog, probes, score
from reward_service.api.tracing import Tracing
from reward_service.schemas import Problem
from reward_service.service import Service

DESCRIPTION = "Reward models behind HTTP: raw, transformed and aggregated scores, each with its provenance."


def create_app(service: Service) -> FastAPI:
    """The application that serves `service`; who started the service closes it."""
    app = routed_app()
    app.state.service = service
    return app


def routed_app() -> FastAPI:
    """The application without a service behind it: enough for its OpenAPI document."""
    app = _Documented(
        title="reward-service",
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        redoc_url=None,
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
    )
    app.add_middleware(Tracing)
    problem.install(app)
    for routes in (score, baselines, catalog, probes):
        app.include_router(routes.router)
    return app


class _Documented(FastAPI):
    """FastAPI whose OpenAPI document describes our errors instead of FastAPI's."""

    def openapi(self) -> dict[str, Any]:
        document = super().openapi()
        schemas = document["components"]["schemas"]
        schemas["Problem"] = Problem.model_json_schema(ref_template="#/components/schemas/{model}")
        for unused in ("HTTPValidationError", "ValidationError"):
            schemas.pop(unused, None)
        return document
