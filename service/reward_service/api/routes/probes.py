"""Alive, ready, metrics."""

from fastapi import APIRouter, Request, Response
from fastapi.responses import JSONResponse

from reward_service.api.checked import CheckedRoute
from reward_service.api.deps import ServiceDep
from reward_service.api.problem import documented
from reward_service.api.security import OPEN, needs
from reward_service.schemas import Health, Readiness

router = APIRouter(tags=["probes"], route_class=CheckedRoute)


@router.get("/health", responses=documented(), openapi_extra=OPEN)
async def health() -> Health:
    """The process is alive."""
    return Health(status="ok")


@router.get(
    "/ready",
    response_model=Readiness,
    responses={503: {"model": Readiness}, **documented()},
    openapi_extra=needs("metrics"),
)
async def ready(request: Request, service: ServiceDep) -> Response:
    """Whether raw scoring works, and will; a failed store is named, and does not make the service unready."""
    readiness = await service.readiness()
    if request.app.state.ending:
        readiness = readiness.model_copy(update={"status": "not_ready"})
    return JSONResponse(readiness.model_dump(), 200 if readiness.status == "ready" else 503)


@router.get(
    "/metrics",
    response_class=Response,
    responses={200: {"content": {"text/plain": {}}}, **documented()},
    openapi_extra=needs("metrics"),
)
async def metrics(service: ServiceDep) -> Response:
    """Prometheus metrics."""
    return Response(service.metrics.exposition(), media_type="text/plain; version=0.0.4; charset=utf-8")
