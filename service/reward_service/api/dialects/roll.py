"""ROLL's remote reward system: a sample is submitted, then its result is asked for until it is there."""

import asyncio
import logging
import time
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from functools import partial
from typing import Any

from fastapi import Request, Response
from fastapi.responses import JSONResponse
from pydantic import Field, FiniteFloat

from reward_service.api.checked import CheckedRoute
from reward_service.api.deps import ServiceDep, while_connected
from reward_service.api.dialects.asked import Asked, Parameters, asked
from reward_service.api.dialects.dialect import Dialect
from reward_service.api.dialects.extended import extended
from reward_service.api.dialects.numbers import term_numbers
from reward_service.api.dialects.reading import Body, read
from reward_service.api.dialects.route import add_route, dialect_router
from reward_service.api.dialects.texts import of_parts
from reward_service.api.problem import documented
from reward_service.api.security import needs
from reward_service.errors import (
    DeadlineExceeded,
    EngineFailed,
    InvalidRequest,
    NotReady,
    Overloaded,
    ServiceError,
    StoreUnavailable,
)
from reward_service.reparsing import answered, is_rendered, prompt_of_words
from reward_service.schemas import Conversation, Message, ScoreAnswer
from reward_service.schemas.base import Answer, Json, Text
from reward_service.service import Service

log = logging.getLogger(__name__)
DONE, RUNNING = 0, 1
LONGEST_S = 3600.0
WAIT_S = 10.0
"""How long a question for a result is held; the trainer waits 20 s for the answer, and 2 s before it asks again."""
SUBMIT_S = 14.0
"""How long a submission waits for room or for the store, of the 20 s that the trainer waits; without it, it takes 0."""
RETRY_S = 2.0
MAY_PASS = (Overloaded, NotReady, EngineFailed, StoreUnavailable, DeadlineExceeded)

router = dialect_router()


class RollTask(Body):
    """A sample, and for how many seconds its reward is waited for; what else ROLL tells is not used."""

    prompt: Text
    response: Text
    timeout: FiniteFloat = Field(300.0, gt=0, le=LONGEST_S)


class RollAccepted(Answer):
    """The name under which the result can be asked for."""

    reward_request_id: str
    errcode: int
    errmsg: str


class RollQuestion(Body):
    """Which result is asked for."""

    reward_request_id: Text = Field(min_length=1, max_length=128, pattern=r"^[A-Za-z0-9_-]+$")


class RollResult(Answer):
    """`errcode` 1 while the sample is being scored, then 0 and its reward, each term's part, and the time it took.

    A sample that failed has a sentence in place of the number, which stops the trainer: for `null` it would take 0.
    `null` is for a submission that got lost with its server, and lets the trainer submit it anew.
    """

    errcode: int
    errmsg: str
    reward_score: float | str | None = None
    dimention_reward_score: dict[str, dict[str, Json]] = Field({})
    objective_hash: str | None = None
    models: dict[str, str] = Field({}, description="fingerprint by model")
    start_time: str | None = None
    end_time: str | None = None


class RollSubmit(Dialect[RollTask, Parameters]):
    """Accepts one sample; its result is at `task_result`, of this server or of another one on the same store."""

    body, parameters = RollTask, Parameters
    answer = RollAccepted
    input = "reparse"

    async def _serve(self, request: Request) -> Response:
        service: Service = request.app.state.service
        try:
            said = asked(request, Parameters, self.input)
            body = await read(request, RollTask)
            work, timeout_s = partial(self._result, service, said, body), body.timeout
        except InvalidRequest as error:  # refused at once, it would be submitted five times and then count as 0
            work, timeout_s = partial(asyncio.sleep, 0, failed(error)), 0.0
        submit = partial(service.submissions.submit, work, size=len(await request.body()), timeout_s=timeout_s)
        name = await while_connected(request, _accepted(submit))
        return JSONResponse({"reward_request_id": name, "errcode": DONE, "errmsg": ""})

    def parse(self, body: RollTask, asked: Asked[Parameters]) -> list[Conversation]:
        """The sample; both texts come without special tokens, so that nothing is known of the response's end."""
        if asked.input != "reparse":
            return [of_parts(body.prompt, body.response, asked)]
        if is_rendered(body.prompt):
            messages = answered(body.prompt + body.response, body.prompt).messages
        else:
            messages = (*prompt_of_words(body.prompt), {"role": "assistant", "content": body.response})
        return [Conversation(messages=[Message(role=one["role"], content=one["content"]) for one in messages])]

    def render(self, body: RollTask, asked: Asked[Parameters], answer: ScoreAnswer) -> Json:  # noqa: ARG002
        """The reward, and by term its part and its raw score."""
        scored = answer.scores[0]
        numbers = term_numbers(scored)
        terms: dict[str, Json] = {
            term.name: {
                "reward_score": numbers.get(f"{term.name}/transformed"),
                "raw": numbers.get(f"{term.name}/raw"),
                "debug_info": {},
            }
            for term in scored.terms
        }
        return {
            "errcode": DONE,
            "errmsg": "",
            "reward_score": scored.reward,
            "dimention_reward_score": terms,
            "objective_hash": answer.objective_hash,
            "models": {name: used.fingerprint for name, used in answer.models.items()},
        }

    def error(self, request: Request, error: ServiceError) -> Response:
        """An error with `errcode` (the status) and `errmsg`."""
        return extended(request, error, {"errcode": error.status, "errmsg": error.detail})

    async def _result(self, service: Service, said: Asked[Parameters], body: RollTask) -> dict[str, Any]:
        """The result of a sample: its reward, or why it has none."""
        began = datetime.now(UTC)
        try:
            result = self.render(body, said, await self._scored_in_time(service, said, body))
        except ServiceError as error:
            result = failed(error)
        except Exception:
            log.exception("a submission of ROLL failed")
            result = failed(ServiceError("unexpected; the log of the server tells it"))
        return {**result, "start_time": began.isoformat(), "end_time": datetime.now(UTC).isoformat()}

    async def _scored_in_time(self, service: Service, said: Asked[Parameters], body: RollTask) -> ScoreAnswer:
        """The scores; what may pass is tried again until the trainer has no more time."""
        conversations = await self._parsed(service, body, said)
        last_start = time.monotonic() + body.timeout - RETRY_S
        try:
            async with asyncio.timeout(body.timeout):
                while True:
                    try:
                        return await self.scored(service, said, conversations)
                    except MAY_PASS:
                        if time.monotonic() > last_start:
                            raise
                    await asyncio.sleep(RETRY_S)
        except TimeoutError:
            raise DeadlineExceeded(f"no reward within {body.timeout:g} s, the time that the trainer gave") from None


async def _accepted(submit: Callable[[], Awaitable[str]]) -> str:
    """The name of a submission, which is made again while there is no room or no store."""
    last_start = time.monotonic() + SUBMIT_S - RETRY_S
    while True:
        try:
            return await submit()
        except (Overloaded, StoreUnavailable):
            if time.monotonic() > last_start:
                raise
        await asyncio.sleep(RETRY_S)


def failed(error: ServiceError) -> dict[str, Any]:
    """The result of a sample that has no reward; the log has its code, and nothing that the trainer wrote."""
    log.warning("no reward for a submission of ROLL: %s", error.code)
    told = f"{error.code}: {error.detail}"
    return {"errcode": DONE, "errmsg": told, "reward_score": told, "dimention_reward_score": {}}


async def task_result(objective: str, body: RollQuestion, service: ServiceDep) -> RollResult:  # noqa: ARG001
    """The reward of a sample that was submitted, or that it is not there yet. Any server on the same store answers."""
    found = await service.submissions.find(body.reward_request_id, wait_s=WAIT_S)
    if found.outcome is not None:
        return RollResult.model_validate(found.outcome)
    if found.is_under_way:
        return RollResult(errcode=RUNNING, errmsg="being scored")
    return RollResult(
        errcode=DONE, errmsg="not known: it expired, or the server that accepted it is gone; submit it anew"
    )


add_route(router, "/roll/{objective}/submit_task", RollSubmit(), "ROLL: submit one sample")
router.add_api_route(
    "/roll/{objective}/task_result",
    task_result,
    methods=["GET"],
    summary="ROLL: the result of a submission",
    responses=documented(400, 404, 413, 422, 503),
    openapi_extra=needs("score"),
    route_class_override=CheckedRoute,
)
