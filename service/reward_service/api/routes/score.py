"""POST /v1/score."""

from typing import Annotated

from fastapi import APIRouter, Query, Request

from reward_service.api.deps import ServiceDep, while_connected
from reward_service.api.direct import DirectRoute
from reward_service.api.problem import documented
from reward_service.api.security import needs
from reward_service.schemas import ScoreAnswer, ScoreRequest

router = APIRouter(tags=["score"], route_class=DirectRoute)


@router.post(
    "/v1/score",
    responses=documented(400, 404, 409, 413, 422, 429, 499, 503, 504),
    openapi_extra=needs("score"),
    response_model_exclude_unset=True,
)
async def score(
    request: Request,
    body: ScoreRequest,
    service: ServiceDep,
    strict: Annotated[bool, Query(description="fail the whole request when one conversation fails")] = False,
    references: Annotated[bool, Query(description="return the raw references behind each term")] = False,
) -> ScoreAnswer:
    """Score conversations with an objective: raw, baseline, transformed and reward, in request order."""
    return await while_connected(request, service.scoring.score(body, strict=strict, with_references=references))
