"""The FastAPI application over a started service."""

from fastapi import FastAPI
from fastapi.routing import APIRoute

from reward_service import __version__
from reward_service.api import problem
from reward_service.api.dialects import classify, llamafactory, nemo_gym, openrlhf, roll, roll_judge, slime, vllm
from reward_service.api.documented import Documented
from reward_service.api.limits import Limits
from reward_service.api.routes import baselines, catalog, pages, probes, score
from reward_service.api.security import Guard
from reward_service.api.tracing import Tracing
from reward_service.service import Service

DESCRIPTION = "Reward models behind HTTP: raw, transformed and aggregated scores, each with its provenance."
TRAINERS = (
    openrlhf.router,
    slime.router,
    llamafactory.router,
    vllm.router,
    classify.router,
    nemo_gym.router,
    roll.router,
    roll_judge.router,
)
ROUTERS = (score.router, *TRAINERS, baselines.router, catalog.router, probes.router, pages.router)
ROUTES = [route for router in ROUTERS for route in router.routes if isinstance(route, APIRoute)]


def create_app(service: Service) -> FastAPI:
    """The application that the network sees; who started the service closes it."""
    app = _over(service)
    app.add_middleware(Limits, limits=service.config.limits)
    app.add_middleware(Guard, keys=service.config.api_keys, routes=ROUTES)
    app.add_middleware(Tracing)  # the outermost: it notes also what is refused
    return app


def in_process_app(service: Service) -> FastAPI:
    """The application for callers in this process, who need no key."""
    app = _over(service)
    app.add_middleware(Tracing)
    return app


def _over(service: Service) -> FastAPI:
    app = routed_app()
    app.state.service = service
    app.state.ending = False
    return app


def routed_app() -> FastAPI:
    """The application without a service behind it: enough for its OpenAPI document."""
    app = Documented(
        title="reward-service",
        version=__version__,
        description=DESCRIPTION,
        redirect_slashes=False,
        openapi_url=None,
        docs_url=None,
        redoc_url=None,
        telemetry={"tracing": False, "metrics": False, "logs": False},  # FastAPI's own tells what callers send
        license_info={"name": "Apache-2.0", "identifier": "Apache-2.0"},
        routes=[*ROUTES],  # as they are: a router that is included looks for its route twice
    )
    problem.install(app)
    app.state.routes = ROUTES
    return app
