"""Stored references: what the baseline endpoints do, over models and store."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from reward_service.baselines import Baselines, Entry, PolicyState, RowsKey, StoredRows, prompt_key
from reward_service.catalog import Catalog, Model
from reward_service.config import LimitsConfig
from reward_service.engine.engine import Estimate, ItemError, Priority
from reward_service.errors import BaselineNotFound, InvalidRequest, TooLarge
from reward_service.rewards.references import QuantileMethod, summarise
from reward_service.schemas import (
    Baseline,
    BaselineEntry,
    BaselinesDeleted,
    BaselinesWritten,
    BuildSnapshot,
    FreezeBaselines,
    FrozenBaselines,
    Prompt,
    PutBaselines,
    QueryBaselines,
    Snapshot,
)
from reward_service.schemas import Baselines as BaselinesAnswer
from reward_service.scoring.outcome import off_loop
from reward_service.scoring.preparing import plain_messages, with_response


class StoredReferences:
    """Reads and writes reference rows for the models of one service."""

    def __init__(self, catalog: Catalog, baselines: Baselines, limits: LimitsConfig) -> None:
        self._catalog = catalog
        self._baselines = baselines
        self._limits = limits

    async def put(self, request: PutBaselines) -> BaselinesWritten:
        """Store the references of every entry, or of none; responses are scored first."""
        with self._catalog.lease([request.model]) as models:
            return await self._put(request, models[request.model])

    async def _put(self, request: PutBaselines, model: Model) -> BaselinesWritten:
        await self._baselines.check_writable(request.policy, request.policy_revision)
        result = await self._baselines.put(
            fingerprint=model.fingerprint,
            policy=request.policy,
            policy_revision=request.policy_revision,
            entries=await self._entries(model, request.entries),
            labels=len(model.card.labels),
            mode=request.mode,
            idempotency_key=request.idempotency_key,
        )
        return BaselinesWritten(
            model=request.model,
            policy=request.policy,
            policy_revision=result.state.policy_revision,
            revision=result.state.revision,
            written=result.written,
            unchanged=result.unchanged,
        )

    async def get(
        self, model: str, policy: str, prompt: str, label: int | str, quantile: float, method: QuantileMethod
    ) -> Baseline:
        """The baseline of one prompt; BaselineNotFound when it has no references."""
        query = QueryBaselines(
            model=model, policy=policy, prompts=[prompt], label=label, quantile=quantile, method=method
        )
        baseline = (await self.query(query)).baselines[0]
        if not baseline.count:
            raise BaselineNotFound(f"no references of policy {policy!r} by model {model!r} for this prompt")
        return baseline

    async def query(self, request: QueryBaselines) -> BaselinesAnswer:
        """The baselines of many prompts, in order."""
        model = self._catalog[request.model]
        output = model.output(request.label)
        keys = [self._key(model, request.policy, prompt, request.tools) for prompt in request.prompts]
        lookup = await self._baselines.look_up(rows=set(keys), policies=[request.policy])
        state = lookup.policies[request.policy]
        answer = partial(_baselines, request, output, state, [lookup.rows.get(key) for key in keys])
        return BaselinesAnswer(baselines=await off_loop(len(keys), answer))

    async def delete(self, policy: str, model: str | None, prompt: str | None) -> BaselinesDeleted:
        """Forget a policy's references: of one prompt of a model, of a model, or of every fingerprint."""
        if prompt is not None and model is None:
            raise InvalidRequest("model: required to delete the references of one prompt")
        result = await self._baselines.delete(
            fingerprint=None if model is None else self._catalog[model].fingerprint,
            policy=policy,
            prompt=None if prompt is None else prompt_key(prompt),
        )
        return BaselinesDeleted(model=model, policy=policy, revision=result.state.revision, deleted=result.deleted)

    async def freeze(self, request: FreezeBaselines) -> FrozenBaselines:
        """Forbid any change of a policy's baselines, or allow it again."""
        state = await self._baselines.freeze(request.policy, request.frozen)
        return FrozenBaselines(
            policy=request.policy,
            policy_revision=state.policy_revision,
            frozen=state.frozen,
            revision=state.revision,
        )

    async def build_snapshot(self, request: BuildSnapshot) -> Snapshot:
        """Pool the references of all prompts into the policy's global snapshot."""
        fingerprint = self._catalog[request.model].fingerprint
        snapshot = await self._baselines.build_snapshot(
            fingerprint=fingerprint, policy=request.policy, at_least=request.min_references
        )
        return Snapshot(
            model=request.model,
            policy=request.policy,
            prompts=snapshot.prompts,
            count=len(snapshot.rows),
            revision=snapshot.revision,
        )

    def _key(self, model: Model, policy: str, prompt: Prompt, tools: Sequence[dict[str, object]] | None) -> RowsKey:
        return RowsKey(model.fingerprint, policy, prompt_key(plain_messages(prompt), tools))

    async def _entries(self, model: Model, entries: Sequence[BaselineEntry]) -> list[Entry]:
        """The entries as rewards: those given as responses are scored, all in one go."""
        responses = [(place, text) for place, entry in enumerate(entries) for text in entry.responses or ()]
        most = self._limits.max_request_conversations
        if len(responses) > most:
            raise TooLarge(f"entries: {len(responses)} responses to score in one request, at most {most}")
        items = [
            with_response(plain_messages(entries[i].prompt), text, tools=entries[i].tools) for i, text in responses
        ]
        deadline = time.monotonic() + self._limits.request_timeout_s
        results = await model.engine.score(items, priority=Priority.ROLLOUT, deadline=deadline) if items else []
        scored: dict[int, list[Estimate]] = {}
        for (place, _), result in zip(responses, results, strict=True):
            if isinstance(result, ItemError):
                position = len(scored.get(place, []))
                raise result.error.located(f"entries[{place}].responses[{position}]")
            scored.setdefault(place, []).append(result)
        return [_entry(entry, scored.get(place, [])) for place, entry in enumerate(entries)]


def _entry(entry: BaselineEntry, scored: Sequence[Estimate]) -> Entry:
    key = prompt_key(plain_messages(entry.prompt), entry.tools)
    if entry.rewards is not None:
        return Entry(prompt=key, rewards=entry.rewards, draw_ids=entry.draw_ids)
    variances = [estimate.variance for estimate in scored]
    return Entry(
        prompt=key,
        rewards=np.array([estimate.outputs for estimate in scored]),
        std=np.sqrt(np.array(variances)) if all(variance is not None for variance in variances) else None,
        tokens=[-1 if estimate.response_tokens is None else estimate.response_tokens for estimate in scored],
        characters=[len(text) for text in entry.responses or ()],
        responses=entry.responses,
        draw_ids=entry.draw_ids,
    )


def _baselines(
    request: QueryBaselines, output: int, state: PolicyState, stored: Sequence[StoredRows | None]
) -> list[Baseline]:
    return [_baseline(request, output, state, rows) for rows in stored]


def _baseline(request: QueryBaselines, output: int, state: PolicyState, stored: StoredRows | None) -> Baseline:
    common = {
        "model": request.model,
        "policy": request.policy,
        "policy_revision": state.policy_revision,
        "frozen": state.frozen,
        "label": request.label,
    }
    if stored is None:
        return Baseline.model_validate({**common, "count": 0})
    summary = summarise(stored.rows.outputs[:, output], request.quantile, request.method)
    return Baseline.model_validate(
        {
            **common,
            "count": summary.count,
            "mean": summary.mean,
            "std": summary.std,
            "quantile": summary.quantile,
            "value": summary.value,
            "method": summary.method,
            "standard_error": summary.standard_error,
            "revision": stored.revision,
        }
    )
