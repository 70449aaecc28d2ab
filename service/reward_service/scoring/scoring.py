"""The one path from a request to its rewards, for the API, jobs and evaluation."""

import time
from collections.abc import Sequence
from functools import partial

import numpy as np

from reward_service.baselines import Baselines, Lookup
from reward_service.catalog import Catalog, Model, Models
from reward_service.config import LimitsConfig
from reward_service.engine.engine import Priority
from reward_service.errors import ExpectationFailed, ServiceError, TooLarge
from reward_service.objectives import Objective, ObjectiveCatalog, Term, raw_outputs
from reward_service.schemas import Conversation, Expectation, PolicyUsed, ScoreAnswer, ScoreRequest
from reward_service.scoring.answering import conversation_scores, models_used, timings, usage
from reward_service.scoring.gathering import Gathered, Gathering
from reward_service.scoring.grouping import advantaged, check_groups
from reward_service.scoring.noting import note_outcome, note_request
from reward_service.scoring.outcome import Outcome, combined, off_loop
from reward_service.scoring.preparing import Prepared, Refused, prepared
from reward_service.scoring.referring import found_for
from reward_service.scoring.terms import Evaluated, evaluate
from reward_service.telemetry import Metrics, Stage

ANYTHING = Expectation()


class Scoring:
    """Scores conversations with the objectives of one service."""

    def __init__(
        self,
        catalog: Catalog,
        objectives: ObjectiveCatalog,
        baselines: Baselines,
        limits: LimitsConfig,
        metrics: Metrics,
    ) -> None:
        self._catalog = catalog
        self._objectives = objectives
        self._baselines = baselines
        self._limits = limits
        self._metrics = metrics

    async def score(self, request: ScoreRequest, *, strict: bool, with_references: bool) -> ScoreAnswer:
        """The answer to a request; with `strict`, the first error of a conversation is raised instead.

        All of it is of the objective and the models that are there when it comes, whatever is reloaded meanwhile.
        """
        objective = self._objectives.choose(request.objective)
        with self._catalog.lease(objective.models) as models:
            return await self._score(request, objective, models, strict=strict, with_references=with_references)

    async def raw(self, model: str, request: ScoreRequest) -> ScoreAnswer:
        """The raw outputs of one model, each as a term; the first error of a conversation is raised."""
        with self._catalog.lease([model]) as models:
            return await self._score(request, raw_outputs(models[model]), models, strict=True, with_references=False)

    async def _score(
        self, request: ScoreRequest, objective: Objective, models: Models, *, strict: bool, with_references: bool
    ) -> ScoreAnswer:
        started = time.monotonic()
        expect = request.expect or ANYTHING
        self._check(request, objective, expect)
        conversations = await off_loop(len(request.conversations), partial(prepared, request.conversations, objective))
        if strict:
            _raise_first(conversations, [c.error if isinstance(c, Refused) else None for c in conversations])
        gathered = await Gathering(
            models=models,
            baselines=self._baselines,
            objective=objective,
            conversations=conversations,
            expected_revisions=expect.baselines or {},
            use_cache=request.cache,
            priority=Priority[request.priority.upper()],
            deadline=started + min(request.timeout_s or np.inf, self._limits.request_timeout_s),
            shared_deadline=started + self._limits.request_timeout_s,
        ).run()
        with Stage("combine"):
            outcome = await off_loop(len(conversations), partial(_outcome, objective, models, conversations, gathered))
        if strict:
            _raise_first(conversations, outcome.errors)
        note_outcome(self._metrics, objective, outcome)
        with Stage("serialise"):
            write = partial(conversation_scores, objective, conversations, outcome, with_references=with_references)
            scores = await off_loop(len(conversations), write)
        answer = ScoreAnswer(
            objective=objective.name,
            objective_hash=objective.hash,
            recipe=objective.recipe,
            scores=scores,
            models=models_used(models),
            baselines=_policies(objective, gathered),
            usage=usage(gathered.spent),
            timings_ms=timings(gathered.spent, time.monotonic() - started),
        )
        note_request(gathered.spent, answer)
        return await off_loop(len(scores), partial(advantaged, answer, request))

    def _check(self, request: ScoreRequest, objective: Objective, expect: Expectation) -> None:
        """Refuse a request that is too large, or that expects another server, before any work."""
        count, most = _to_score(request), self._limits.max_request_conversations
        if count > most:
            raise TooLarge(
                f"conversations: {count} in one request, reference responses included; "
                f"at most {most} (limits.max_request_conversations)"
            )
        check_groups(request, objective)
        if expect.objective_hash not in (None, objective.hash):
            raise ExpectationFailed(
                f"expect.objective_hash: {expect.objective_hash!r} expected, {objective.name!r} is {objective.hash!r}"
            )
        for name, fingerprint in (expect.models or {}).items():
            if self._catalog[name].fingerprint != fingerprint:
                raise ExpectationFailed(
                    f"expect.models.{name}: {fingerprint!r} expected, it is {self._catalog[name].fingerprint!r}"
                )


def _outcome(
    objective: Objective, models: Models, conversations: Sequence[Prepared | Refused], gathered: Gathered
) -> Outcome:
    evaluated = [_evaluate(term, models[term.model], conversations, gathered) for term in objective.terms]
    return combined(objective, evaluated)


def _evaluate(term: Term, model: Model, conversations: Sequence[Prepared | Refused], gathered: Gathered) -> Evaluated:
    found = found_for(term, model.fingerprint, conversations, gathered.evidence)
    return evaluate(term, gathered.estimates[term.model], found)


def _to_score(request: ScoreRequest) -> int:
    """The conversations of a request and the reference responses that come with them."""
    valid = [one for one in request.conversations if isinstance(one, Conversation) and one.references]
    given = [references for one in valid for references in (one.references or {}).values()]
    return len(request.conversations) + sum(len(references.responses or ()) for references in given)


def _raise_first(conversations: Sequence[Prepared | Refused], errors: Sequence[ServiceError | None]) -> None:
    for i, error in enumerate(errors):
        if error is not None:
            raise error if isinstance(conversations[i], Refused) else error.located(f"conversations[{i}]")


def _policies(objective: Objective, gathered: Gathered) -> dict[str, PolicyUsed]:
    lookup = gathered.evidence.lookup
    if not isinstance(lookup, Lookup):
        return {}
    return {
        policy: PolicyUsed(policy_revision=state.policy_revision, frozen=state.frozen, revision=state.revision)
        for policy, state in ((name, lookup.policies[name]) for name in objective.policies)
    }
