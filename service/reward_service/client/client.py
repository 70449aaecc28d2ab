"""Client and AsyncClient: two thin shells around the calls."""

from collections.abc import Sequence
from types import TracebackType
from typing import Any, Literal, Self, TypeVar

import httpx
from pydantic import BaseModel

from reward_service.client import calls
from reward_service.client.calls import Call, Json
from reward_service.client.errors import RequestFailed, ScoringFailed
from reward_service.schemas import (
    Baseline,
    Baselines,
    BaselinesDeleted,
    BaselinesWritten,
    FrozenBaselines,
    ModelCard,
    Models,
    Objectives,
    ScoreAnswer,
    Snapshot,
)

A = TypeVar("A", bound=BaseModel)
OnFailure = Literal["raise", "none"]
TIMEOUT_S = 300.0


class Client:
    """Calls a reward service.

    With `on_failure="raise"` a conversation without a reward raises ScoringFailed; with "none" its reward is None.
    Every method raises RequestFailed when the service refuses a request, and httpx.HTTPError when it cannot be reached.
    """

    def __init__(
        self,
        base_url: str,
        *,
        on_failure: OnFailure = "raise",
        timeout_s: float = TIMEOUT_S,
        transport: httpx.BaseTransport | None = None,
    ) -> None:
        self._on_failure: OnFailure = on_failure
        self._http = httpx.Client(base_url=base_url, timeout=timeout_s, transport=transport)

    def score(self, conversations: Sequence[Json], objective: str | None = None, **options: Any) -> ScoreAnswer:
        """Score conversations; options: `expect`, `timeout_s`, `references`, `cache`."""
        return _checked(self._send(calls.score(conversations, objective, **options)), self._on_failure)

    def put_baselines(self, model: str, policy: str, entries: Sequence[Json], **options: Any) -> BaselinesWritten:
        """Store references; options: `mode`, `policy_revision`, `idempotency_key`."""
        return self._send(calls.put_baselines(model, policy, entries, **options))

    def baseline(self, model: str, policy: str, prompt: str, **options: Any) -> Baseline:
        """The baseline of a one-turn prompt; options: `label`, `quantile`, `method`."""
        return self._send(calls.baseline(model, policy, prompt, **options))

    def query_baselines(
        self, model: str, policy: str, prompts: Sequence[str | Sequence[Json]], **options: Any
    ) -> Baselines:
        """The baselines of many prompts; options: `tools`, `label`, `quantile`, `method`."""
        return self._send(calls.query_baselines(model, policy, prompts, **options))

    def delete_baselines(self, policy: str, **options: Any) -> BaselinesDeleted:
        """Forget a policy's references; options: `model` (only this one's), `prompt` (only this one's)."""
        return self._send(calls.delete_baselines(policy, **options))

    def freeze_baselines(self, policy: str, *, frozen: bool = True) -> FrozenBaselines:
        """Forbid any change of a policy's baselines, or allow it again."""
        return self._send(calls.freeze_baselines(policy, frozen=frozen))

    def build_global_baseline(self, model: str, policy: str, **options: Any) -> Snapshot:
        """Take a policy's global snapshot anew; options: `min_references` that a prompt needs to count."""
        return self._send(calls.build_global_baseline(model, policy, **options))

    def models(self) -> Models:
        """What is loaded."""
        return self._send(calls.models())

    def model(self, name: str) -> ModelCard:
        """One loaded model."""
        return self._send(calls.model(name))

    def objectives(self) -> Objectives:
        """The objectives on offer."""
        return self._send(calls.objectives())

    def close(self) -> None:
        """Close the connections."""
        self._http.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, call: Call[A]) -> A:
        return _parsed(call, self._http.request(call.method, call.path, json=call.body, params=dict(call.params)))


class AsyncClient:
    """Client for async code; the same calls, awaited."""

    def __init__(
        self,
        base_url: str,
        *,
        on_failure: OnFailure = "raise",
        timeout_s: float = TIMEOUT_S,
        transport: httpx.AsyncBaseTransport | None = None,
    ) -> None:
        self._on_failure: OnFailure = on_failure
        self._http = httpx.AsyncClient(base_url=base_url, timeout=timeout_s, transport=transport)

    async def score(self, conversations: Sequence[Json], objective: str | None = None, **options: Any) -> ScoreAnswer:
        """Score conversations; options: `expect`, `timeout_s`, `references`, `cache`."""
        return _checked(await self._send(calls.score(conversations, objective, **options)), self._on_failure)

    async def put_baselines(self, model: str, policy: str, entries: Sequence[Json], **options: Any) -> BaselinesWritten:
        """Store references; options: `mode`, `policy_revision`, `idempotency_key`."""
        return await self._send(calls.put_baselines(model, policy, entries, **options))

    async def baseline(self, model: str, policy: str, prompt: str, **options: Any) -> Baseline:
        """The baseline of a one-turn prompt; options: `label`, `quantile`, `method`."""
        return await self._send(calls.baseline(model, policy, prompt, **options))

    async def query_baselines(
        self, model: str, policy: str, prompts: Sequence[str | Sequence[Json]], **options: Any
    ) -> Baselines:
        """The baselines of many prompts; options: `tools`, `label`, `quantile`, `method`."""
        return await self._send(calls.query_baselines(model, policy, prompts, **options))

    async def delete_baselines(self, policy: str, **options: Any) -> BaselinesDeleted:
        """Forget a policy's references; options: `model` (only this one's), `prompt` (only this one's)."""
        return await self._send(calls.delete_baselines(policy, **options))

    async def freeze_baselines(self, policy: str, *, frozen: bool = True) -> FrozenBaselines:
        """Forbid any change of a policy's baselines, or allow it again."""
        return await self._send(calls.freeze_baselines(policy, frozen=frozen))

    async def build_global_baseline(self, model: str, policy: str, **options: Any) -> Snapshot:
        """Take a policy's global snapshot anew; options: `min_references` that a prompt needs to count."""
        return await self._send(calls.build_global_baseline(model, policy, **options))

    async def models(self) -> Models:
        """What is loaded."""
        return await self._send(calls.models())

    async def model(self, name: str) -> ModelCard:
        """One loaded model."""
        return await self._send(calls.model(name))

    async def objectives(self) -> Objectives:
        """The objectives on offer."""
        return await self._send(calls.objectives())

    async def close(self) -> None:
        """Close the connections."""
        await self._http.aclose()

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.close()

    async def _send(self, call: Call[A]) -> A:
        return _parsed(call, await self._http.request(call.method, call.path, json=call.body, params=dict(call.params)))


def _parsed(call: Call[A], response: httpx.Response) -> A:
    """The answer of a call, or RequestFailed with what the service said."""
    if response.is_success:
        return call.answer.model_validate_json(response.content)
    try:
        problem = response.json()
        code, detail = str(problem["code"]), str(problem["detail"])
    except (ValueError, KeyError, TypeError):
        code, detail = "not_a_problem_document", response.text[:500]
    raise RequestFailed(response.status_code, code, detail, response.headers.get("x-request-id"))


def _checked(answer: ScoreAnswer, on_failure: OnFailure) -> ScoreAnswer:
    if on_failure == "raise" and any(score.error is not None for score in answer.scores):
        raise ScoringFailed(answer.scores)
    return answer
