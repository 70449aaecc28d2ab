"""Reference rows per model, policy and prompt."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from reward_service.api.checked import CheckedRoute
from reward_service.api.deps import ServiceDep, while_connected
from reward_service.api.problem import documented
from reward_service.api.security import needs
from reward_service.schemas import (
    Baseline,
    Baselines,
    BaselinesDeleted,
    BaselinesWritten,
    BuildSnapshot,
    FreezeBaselines,
    FrozenBaselines,
    Policy,
    PutBaselines,
    QuantileMethod,
    QueryBaselines,
    Snapshot,
)

router = APIRouter(tags=["baselines"], prefix="/v1/baselines", route_class=CheckedRoute)
NEEDS = needs("baselines")


@router.put("", responses=documented(400, 404, 409, 413, 422, 429, 499, 503, 504), openapi_extra=NEEDS)
async def put_baselines(request: Request, body: PutBaselines, service: ServiceDep) -> BaselinesWritten:
    """Store references of prompts: raw rewards as given, or responses, which are scored first."""
    return await while_connected(request, service.references.put(body))


@router.get("", responses=documented(404, 422, 503), openapi_extra=NEEDS)
async def get_baseline(
    service: ServiceDep,
    model: str,
    policy: Policy,
    prompt: Annotated[str, Query(description="the text of a one-turn prompt; for others use POST /v1/baselines/query")],
    label: Annotated[str, Query(description="which output, by index or name", max_length=256)] = "0",
    quantile: Annotated[float, Query(gt=0, lt=1)] = 0.85,
    method: QuantileMethod = "auto",
) -> Baseline:
    """The baseline of one prompt; 404 when it has no references."""
    return await service.references.get(
        model, policy, prompt, int(label) if label.isdecimal() else label, quantile, method
    )


@router.delete("", responses=documented(404, 409, 422, 503), openapi_extra=NEEDS)
async def delete_baselines(
    service: ServiceDep,
    policy: Policy,
    model: Annotated[str | None, Query(description="only this model's; without it, those of every fingerprint")] = None,
    prompt: Annotated[str | None, Query(description="only this prompt's of the model; without it, all")] = None,
) -> BaselinesDeleted:
    """Forget a policy's references: of one prompt, of a model, or all there are."""
    return await service.references.delete(policy, model, prompt)


@router.post("/query", responses=documented(400, 404, 422, 503), openapi_extra=NEEDS)
async def query_baselines(body: QueryBaselines, service: ServiceDep) -> Baselines:
    """The baselines of many prompts at once, also of prompts with several turns; `count` is 0 where there is none."""
    return await service.references.query(body)


@router.post("/freeze", responses=documented(400, 404, 422, 503), openapi_extra=NEEDS)
async def freeze_baselines(body: FreezeBaselines, service: ServiceDep) -> FrozenBaselines:
    """Forbid any change of a policy's baselines, or allow it again."""
    return await service.references.freeze(body)


@router.post("/global", responses=documented(400, 404, 409, 422, 503), openapi_extra=NEEDS)
async def build_global_baseline(body: BuildSnapshot, service: ServiceDep) -> Snapshot:
    """Take the policy's global snapshot anew: what `on_missing = "global"` falls back to."""
    return await service.references.build_snapshot(body)
