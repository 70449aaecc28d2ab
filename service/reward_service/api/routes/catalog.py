"""What is loaded and what is on offer."""

from fastapi import APIRouter, Request

from reward_service.api.checked import CheckedRoute
from reward_service.api.deps import ServiceDep, while_connected
from reward_service.api.problem import documented
from reward_service.api.security import needs
from reward_service.schemas import ModelCard, ModelReloaded, Models, Objectives, ReloadModel

router = APIRouter(tags=["catalog"], route_class=CheckedRoute)


@router.get("/v1/models", responses=documented(), openapi_extra=needs("score"))
async def list_models(service: ServiceDep) -> Models:
    """The loaded models with their fingerprints."""
    return Models(models=[model.describe() for model in service.catalog])


@router.get("/v1/models/{name}", responses=documented(404, 422), openapi_extra=needs("score"))
async def get_model(name: str, service: ServiceDep) -> ModelCard:
    """One loaded model."""
    return service.catalog[name].describe()


@router.post(
    "/v1/models/{name}/reload",
    responses=documented(400, 404, 409, 413, 422, 499),
    openapi_extra=needs("admin"),
)
async def reload_model(
    request: Request,
    name: str,
    service: ServiceDep,
    body: ReloadModel | None = None,  # noqa: ARG001
) -> ModelReloaded:
    """Load a model anew, as its files are now, and swap it for the one that serves; no request is dropped."""
    return await while_connected(request, service.reloads.reload(name))


@router.get("/v1/objectives", responses=documented(), openapi_extra=needs("score"))
async def list_objectives(service: ServiceDep) -> Objectives:
    """The objectives with their recipes and hashes."""
    return service.objectives.cards()
