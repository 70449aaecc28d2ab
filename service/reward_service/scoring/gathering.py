"""What a request needs from models and store, asked for at once: raw scores, stored references, canned responses."""

import asyncio
import time
from collections.abc import Collection, Coroutine, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from reward_service.baselines import Baselines, CannedKey, Lookup, RowsKey, SnapshotKey
from reward_service.catalog import Lease, Models
from reward_service.config import ResponseBaseline, StoredBaseline
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.errors import DeadlineExceeded, ExpectationFailed, ServiceError, StoreUnavailable
from reward_service.objectives import Objective
from reward_service.rewards.scales import Array
from reward_service.scoring.preparing import Prepared, Refused, with_response
from reward_service.scoring.referring import Evidence
from reward_service.telemetry import Span, Stage

T = TypeVar("T")
Results = list[Estimate | ItemError]


@dataclass(frozen=True, slots=True)
class Gathered:
    """Everything that a request's terms are computed from; `estimates` by model, in the order of the conversations."""

    estimates: Mapping[str, list[Estimate | ServiceError]]
    evidence: Evidence
    spent: list[Estimate]


@dataclass(slots=True)
class Gathering:
    """One request's questions to the models and the store.

    `deadline` is the request's; what other requests may wait for too (canned responses) gets `shared_deadline`.
    """

    models: Models
    baselines: Baselines
    objective: Objective
    conversations: Sequence[Prepared | Refused]
    expected_revisions: Mapping[str, int]
    use_cache: bool
    priority: Priority
    deadline: float
    shared_deadline: float
    spent: list[Estimate] = field(default_factory=list)

    async def run(self) -> Gathered:
        """Ask models and store at once; the first failure of a whole question cancels the others and is raised."""
        try:
            async with asyncio.TaskGroup() as group:
                gate = self._gate()
                first, *rest = sorted(self.objective.models, key=lambda name: name != gate)
                asked = {first: group.create_task(self._model(first, admitted=False))}
                asked |= {name: group.create_task(self._model(name, admitted=True)) for name in rest}
                lookup, canned = await self._stored()
        except BaseExceptionGroup as errors:
            raise _first(errors) from None
        answers = {name: task.result() for name, task in asked.items()}
        responses = {key: results for _, of_terms in answers.values() for key, results in of_terms.items()}
        estimates = {name: self._in_order(of_conversations) for name, (of_conversations, _) in answers.items()}
        return Gathered(estimates, Evidence(lookup, canned, responses), self.spent)

    def _gate(self) -> str:
        """The model that admits the request, once for all: the busiest of those that the reward needs."""
        needed = [term.model for term in self.objective.terms if term.weight > 0]
        return max(needed or self.objective.models, key=lambda name: self.models[name].engine.work_s)

    async def _model(self, name: str, *, admitted: bool) -> tuple[Results, dict[tuple[int, str], Results]]:
        """A model's results for the conversations, and for the responses that the request gives as references."""
        items = [prepared.item for prepared in self._prepared()]
        asked = self._asked_responses(name)
        batches = [
            [with_response(p.prompt or (), r, tools=p.item.tools) for r in p.references[t].responses or ()]
            for _, t, p in asked
        ]
        everything = [*items, *(item for batch in batches for item in batch)]
        with Span("score", model=name, items=len(everything)):
            results = await self._score_or_fail(
                name, everything, self.deadline, admitted=admitted, use_cache=self.use_cache
            )
        rest = iter(results[len(items) :])
        of_terms = {(i, t): [next(rest) for _ in batch] for (i, t, _), batch in zip(asked, batches, strict=True)}
        return results[: len(items)], of_terms

    async def _score_or_fail(
        self, model: str, items: Sequence[Item], deadline: float, *, admitted: bool, use_cache: bool
    ) -> Results:
        """Results of a model that a reward needs; for a model that is only watched, a failure is one of each item."""
        try:
            return await self._score(model, items, deadline, admitted=admitted, use_cache=use_cache)
        except ServiceError as error:
            if any(term.weight > 0 for term in self.objective.terms if term.model == model):
                raise
            return [ItemError(error) for _ in items]

    async def _score(
        self, model: str, items: Sequence[Item], deadline: float, *, admitted: bool, use_cache: bool
    ) -> Results:
        if not items:
            return []
        engine = self.models[model].engine
        results = await engine.score(
            items, priority=self.priority, deadline=deadline, admitted=admitted, use_cache=use_cache
        )
        self.spent += [result for result in results if isinstance(result, Estimate)]
        return results

    async def _stored(self) -> tuple[Lookup | ServiceError, dict[CannedKey, Array | ServiceError]]:
        """Stored references in one round trip, then what canned responses are missing; those need no store."""
        rows, snapshots, canned = self._keys()
        policies = {*self.objective.policies, *self.expected_revisions}
        lookup = await self._lookup(rows, canned, policies, snapshots)
        known: dict[CannedKey, Array | ServiceError] = {} if isinstance(lookup, ServiceError) else dict(lookup.canned)
        missing = [key for key in canned if key not in known]
        if not missing:
            return lookup, known
        try:
            computed = await self._in_time(self.baselines.canned(missing, lambda keys: self._canned(keys, canned)))
        except (StoreUnavailable, DeadlineExceeded) as error:
            return lookup, {**known, **dict.fromkeys(missing, error)}
        return lookup, {**known, **computed}

    async def _lookup(
        self, rows: set[RowsKey], canned: Collection[CannedKey], policies: set[str], snapshots: set[SnapshotKey]
    ) -> Lookup | ServiceError:
        """What the store has, or why it cannot say; raised only if the request expects revisions."""
        try:
            with Stage("look_up"):
                lookup = await self._in_time(self.baselines.look_up(rows, canned, policies, snapshots))
        except (StoreUnavailable, DeadlineExceeded) as error:
            if self.expected_revisions:
                raise
            return error
        self._check_revisions(lookup)
        return lookup

    async def _in_time(self, question: Coroutine[Any, Any, T]) -> T:
        """The answer to a question, or DeadlineExceeded at the request's deadline."""
        try:
            async with asyncio.timeout(max(0.0, self.deadline - time.monotonic())):
                return await question
        except TimeoutError as error:
            raise DeadlineExceeded(
                "the time that the request allowed was over before its baselines were there"
            ) from error

    async def _canned(
        self, keys: Sequence[CannedKey], prompts: Mapping[CannedKey, tuple[str, Prepared]]
    ) -> list[Array | ServiceError]:
        """The outputs for canned responses to this request's prompts; others may still want them when it has left."""
        outputs: dict[CannedKey, Array | ServiceError] = {}
        with Lease(self.models):
            for model in self.objective.models:
                mine = [key for key in keys if prompts[key][0] == model]
                items = [
                    with_response(prompts[k][1].prompt or (), k.response, tools=prompts[k][1].item.tools) for k in mine
                ]
                results = await self._score_or_fail(model, items, self.shared_deadline, admitted=True, use_cache=True)
                for key, result in zip(mine, results, strict=True):
                    outputs[key] = result.error if isinstance(result, ItemError) else result.outputs
        return [outputs[key] for key in keys]

    def _keys(self) -> tuple[set[RowsKey], set[SnapshotKey], dict[CannedKey, tuple[str, Prepared]]]:
        """What the terms need of the store; a canned response also says for which model and prompt."""
        rows: set[RowsKey] = set()
        snapshots: set[SnapshotKey] = set()
        canned: dict[CannedKey, tuple[str, Prepared]] = {}
        for term in self.objective.terms:
            fingerprint = self.models[term.model].fingerprint
            needing = {
                p.prompt_key: p for p in self._prepared() if p.prompt_key is not None and term.name not in p.references
            }
            if isinstance(term.baseline, StoredBaseline):
                policy = term.baseline.policy
                rows |= {RowsKey(fingerprint, policy, prompt_key) for prompt_key in needing}
                snapshots |= {SnapshotKey(fingerprint, policy)} if term.baseline.on_missing == "global" else set()
            elif isinstance(term.baseline, ResponseBaseline):
                response = term.baseline.response
                canned |= {CannedKey(fingerprint, response, key): (term.model, p) for key, p in needing.items()}
        return rows, snapshots, canned

    def _prepared(self) -> list[Prepared]:
        return [one for one in self.conversations if isinstance(one, Prepared)]

    def _asked_responses(self, model: str) -> list[tuple[int, str, Prepared]]:
        """The conversations that bring responses as references for a term of the model: index, term, conversation."""
        terms = {term.name for term in self.objective.terms if term.model == model}
        bringing = (
            (i, one) for i, one in enumerate(self.conversations) if isinstance(one, Prepared) and one.references
        )
        return [
            (i, name, one)
            for i, one in bringing
            for name, given in one.references.items()
            if given.responses is not None and name in terms
        ]

    def _in_order(self, results: Results) -> list[Estimate | ServiceError]:
        """One entry per conversation of the request, those that were refused among them."""
        rest = iter(results)
        in_order: list[Estimate | ServiceError] = []
        for conversation in self.conversations:
            if isinstance(conversation, Refused):
                in_order.append(conversation.error)
                continue
            result = next(rest)
            in_order.append(result.error if isinstance(result, ItemError) else result)
        return in_order

    def _check_revisions(self, lookup: Lookup) -> None:
        for policy, revision in self.expected_revisions.items():
            present = lookup.policies[policy].revision
            if present != revision:
                raise ExpectationFailed(f"expect.baselines.{policy}: revision {revision} expected, it is {present} now")


def _first(errors: BaseExceptionGroup) -> BaseException:
    first: BaseException = errors
    while isinstance(first, BaseExceptionGroup):
        first = first.exceptions[0]
    return first
