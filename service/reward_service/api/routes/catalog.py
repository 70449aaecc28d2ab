"""What is loaded and what is on offer."""

from fastapi import APIRouter

from reward_service.api.deps import ServiceDep
from reward_service.api.problem import documented
from reward_service.schemas import ModelCard, Models, Objectives

router = APIRouter(tags=["catalog"])


@router.get("/v1/models", responses=documented())
async def list_models(service: ServiceDep) -> Models:
    """The loaded models with their fingerprints."""
    return Models(models=[model.describe() for model in service.catalog])


@router.get("/v1/models/{name}", responses=documented(404, 422))
async def get_model(name: str, service: ServiceDep) -> ModelCard:
    """One loaded model."""
    return service.catalog[name].describe()


@router.get("/v1/objectives", responses=documented())
async def list_objectives(service: ServiceDep) -> Objectives:
    """The objectives with their recipes and hashes."""
    return service.objectives.cards()
