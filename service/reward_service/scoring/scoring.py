"""The one path from a request to its rewards, for the API, jobs and evaluation."""

import time
from collections.abc import Sequence

import numpy as np

from reward_service.baselines import Baselines, Lookup
from reward_service.catalog import Catalog
from reward_service.config import LimitsConfig
from reward_service.errors import ExpectationFailed, ServiceError, TooLarge
from reward_service.objectives import Objective, ObjectiveCatalog
from reward_service.rewards.transforms import Needs
from reward_service.schemas import Expectation, PolicyUsed, ScoreAnswer, ScoreRequest
from reward_service.scoring.answering import conversation_score, models_used, term_score, timings, usage
from reward_service.scoring.gathering import Gathered, Gathering
from reward_service.scoring.preparing import Prepared, Refused, prepare
from reward_service.scoring.referring import Found, find
from reward_service.scoring.terms import Evaluated, evaluate
from reward_service.telemetry import Metrics


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
        """The answer to a request; with `strict`, the first error of a conversation is raised instead."""
        started = time.monotonic()
        objective = self._objectives.choose(request.objective)
        expect = request.expect or Expectation()
        self._check(request, objective, expect)
        conversations = [prepare(c, i, objective) for i, c in enumerate(request.conversations)]
        if strict:
            _raise_first(conversations, [c.error if isinstance(c, Refused) else None for c in conversations])
        gathered = await Gathering(
            catalog=self._catalog,
            baselines=self._baselines,
            objective=objective,
            conversations=conversations,
            expected_revisions=expect.baselines or {},
            deadline=started + min(request.timeout_s or np.inf, self._limits.request_timeout_s),
            shared_deadline=started + self._limits.request_timeout_s,
        ).run()
        evaluated = [self._evaluate(objective, place, conversations, gathered) for place in range(len(objective.terms))]
        errors = [_error(objective, evaluated, i) for i in range(len(conversations))]
        if strict:
            _raise_first(conversations, errors)
        self._note(objective, evaluated, errors)
        rewards = objective.combine([one.values for one in evaluated])
        return ScoreAnswer(
            objective=objective.name,
            objective_hash=objective.hash,
            recipe=objective.recipe,
            scores=[
                conversation_score(
                    conversation.id,
                    []
                    if isinstance(conversation, Refused)
                    else [
                        term_score(term, one, i, with_references=with_references)
                        for term, one in zip(objective.terms, evaluated, strict=True)
                    ],
                    float(rewards[i]),
                    errors[i],
                )
                for i, conversation in enumerate(conversations)
            ],
            models=models_used({name: self._catalog[name] for name in objective.models}),
            baselines=_policies(objective, gathered),
            usage=usage(gathered.spent),
            timings_ms=timings(gathered.spent, time.monotonic() - started),
        )

    def _check(self, request: ScoreRequest, objective: Objective, expect: Expectation) -> None:
        """Refuse a request that is too large, or that expects another server, before any work."""
        count, most = len(request.conversations), self._limits.max_request_conversations
        if count > most:
            raise TooLarge(f"conversations: {count} in one request, at most {most} (limits.max_request_conversations)")
        if expect.objective_hash not in (None, objective.hash):
            raise ExpectationFailed(
                f"expect.objective_hash: {expect.objective_hash!r} expected, {objective.name!r} is {objective.hash!r}"
            )
        for name, fingerprint in (expect.models or {}).items():
            if self._catalog[name].fingerprint != fingerprint:
                raise ExpectationFailed(
                    f"expect.models.{name}: {fingerprint!r} expected, it is {self._catalog[name].fingerprint!r}"
                )

    def _evaluate(
        self, objective: Objective, place: int, conversations: Sequence[Prepared | Refused], gathered: Gathered
    ) -> Evaluated:
        term = objective.terms[place]
        fingerprint = self._catalog[term.model].fingerprint
        found: list[Found | ServiceError | None] = [
            None
            if isinstance(conversation, Refused) or term.transform.needs is Needs.NOTHING
            else find(term, fingerprint, i, conversation, gathered.evidence)
            for i, conversation in enumerate(conversations)
        ]
        return evaluate(term, gathered.estimates[term.model], found)

    def _note(
        self, objective: Objective, evaluated: Sequence[Evaluated], errors: Sequence[ServiceError | None]
    ) -> None:
        self._metrics.conversations.labels(objective.name).inc(len(errors))
        for error in errors:
            if error is not None:
                self._metrics.errors.labels(error.code).inc()
        for one in evaluated:
            for found in one.found:
                if found is not None:
                    self._metrics.baselines.labels(found.source).inc()


def _error(objective: Objective, evaluated: Sequence[Evaluated], index: int) -> ServiceError | None:
    """Why the conversation has no reward: the first error of a term that counts; a watched term cannot fail it."""
    for term, one in zip(objective.terms, evaluated, strict=True):
        error = one.errors[index]
        if error is not None and term.weight > 0:
            return error
    return None


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
