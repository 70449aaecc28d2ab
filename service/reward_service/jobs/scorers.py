"""Who scores the conversations of a job: a running service, or one in this process."""

import asyncio
from collections.abc import Mapping, Sequence
from typing import Any, Protocol

from reward_service.client import AsyncClient
from reward_service.client.errors import ClientError, RequestFailed
from reward_service.errors import ExpectationFailed, InvalidRequest, JobStopped, Overloaded, ServiceError
from reward_service.schemas import ErrorBody, ScoreAnswer, ScoreRequest
from reward_service.service import Service

Json = Mapping[str, Any]


OF_THE_ROWS = (400, 413, 422)
UNAVAILABLE = "unavailable"
"""What the client says of conversations that nobody answered."""


class Refused(Exception):
    """A request that no service takes as it is: too large, or with something in it that cannot be sent."""

    def __init__(self, status: int, code: str, detail: str) -> None:
        super().__init__(detail)
        self.body = ErrorBody(code=code, title="Refused", status=status, detail=detail)


class Scorer(Protocol):
    """What scores conversations, after whatever waiting and trying again that takes."""

    async def score(self, conversations: Sequence[Json], objective: str | None, expect: Json | None) -> ScoreAnswer:
        """The answer; Refused when these conversations are the reason that there is none, else JobStopped."""


class ServerScorer:
    """A running service, or several replicas of it, by a client that was made with `on_failure="none"`."""

    def __init__(self, client: AsyncClient) -> None:
        self._client = client

    async def score(self, conversations: Sequence[Json], objective: str | None, expect: Json | None) -> ScoreAnswer:
        """The service's answer."""
        try:
            answer = await self._client.score(conversations, objective, expect=expect, priority="job")
        except RequestFailed as error:
            if error.status in OF_THE_ROWS:
                raise Refused(error.status, error.code, error.detail) from error
            raise JobStopped(_told(error.status, str(error))) from error
        except ClientError as error:
            raise JobStopped(str(error)) from error
        except TypeError as error:  # what JSON cannot hold, such as the NaN of a Parquet file
            raise Refused(InvalidRequest.status, InvalidRequest.code, str(error)) from error
        lost = [score.error for score in answer.scores if score.error and score.error.code == UNAVAILABLE]
        if lost or not answer.objective_hash:
            raise JobStopped(f"the service cannot be reached: {lost[0].detail if lost else 'no answer in time'}")
        return answer


class ServiceScorer:
    """A service in this process; callers that find no room wait here until there is some."""

    def __init__(self, service: Service) -> None:
        self._scoring = service.scoring

    async def score(self, conversations: Sequence[Json], objective: str | None, expect: Json | None) -> ScoreAnswer:
        """The service's answer."""
        request = ScoreRequest.model_validate(
            {"objective": objective, "conversations": list(conversations), "expect": expect, "priority": "job"}
        )
        while True:
            try:
                return await self._scoring.score(request, strict=False, with_references=False)
            except Overloaded as error:
                await asyncio.sleep(error.retry_after_s)
            except ServiceError as error:
                if error.status in OF_THE_ROWS:
                    raise Refused(error.status, error.code, error.detail) from error
                raise JobStopped(_told(error.status, f"{error.title}: {error.detail}")) from error


def _told(status: int, refusal: str) -> str:
    if status != ExpectationFailed.status:
        return f"the service refuses: {refusal}"
    return f"what scores has changed in the middle of the job: {refusal}; run it again to see what can be done"
