"""The answer of a request from its evaluated terms."""

import math
from collections.abc import Iterator, Mapping, Sequence

from reward_service.catalog import Model
from reward_service.engine.engine import Estimate
from reward_service.errors import ServiceError
from reward_service.objectives import Objective, Term
from reward_service.rewards.references import Summary
from reward_service.rewards.scales import Array
from reward_service.rewards.transforms import Needs
from reward_service.schemas import (
    ConversationScore,
    ErrorBody,
    ModelUsed,
    ReferenceUsed,
    TermScore,
    Timings,
    Usage,
)
from reward_service.scoring.outcome import Outcome
from reward_service.scoring.preparing import Prepared, Refused
from reward_service.scoring.referring import Found
from reward_service.scoring.terms import Evaluated


def error_body(error: ServiceError) -> ErrorBody:
    """An error as it stands beside its conversation or term."""
    return ErrorBody(code=error.code, title=error.title, status=error.status, detail=error.detail)


def conversation_scores(
    objective: Objective, conversations: Sequence[Prepared | Refused], outcome: Outcome, *, with_references: bool
) -> list[ConversationScore]:
    """Each conversation's answer, in order: a reward where there is no error, and every term."""
    return [
        ConversationScore(
            id=conversation.id,
            reward=float(outcome.rewards[i]) if outcome.errors[i] is None else None,
            terms=[]
            if isinstance(conversation, Refused)
            else [
                term_score(term, evaluated, i, with_references=with_references)
                for term, evaluated in zip(objective.terms, outcome.terms, strict=True)
            ],
            error=None if (error := outcome.errors[i]) is None else error_body(error),
        )
        for i, conversation in enumerate(conversations)
    ]


def term_score(term: Term, evaluated: Evaluated, index: int, *, with_references: bool) -> TermScore:
    """One term of the conversation at `index`."""
    found, error = evaluated.found[index], evaluated.errors[index]
    transformed = float(evaluated.values.value[index])
    return TermScore(
        name=term.name,
        model=term.model,
        label=term.label,
        raw=_number(evaluated.raw[index]),
        raw_source=evaluated.raw_sources[index],
        std=_number(evaluated.std[index]),
        temperature=term.temperature,
        baseline=_number(evaluated.baseline[index]),
        baseline_source=found.source if found else None,
        reference=_reference(term, evaluated, index, with_references=with_references),
        transformed=transformed if error is None else None,
        weight=term.weight,
        error=error_body(error) if error else None,
    )


def _reference(term: Term, evaluated: Evaluated, index: int, *, with_references: bool) -> ReferenceUsed | None:
    found, summary = evaluated.found[index], evaluated.summaries[index]
    if found is None or summary is None or _is_single_number(term, found):
        return None
    return _described(found, summary, evaluated.share_below, index, with_references=with_references)


def _is_single_number(term: Term, found: Found) -> bool:
    return found.source in ("response", "constant") and term.transform.needs is Needs.BASELINE


def _described(
    found: Found, summary: Summary, share_below: Array, index: int, *, with_references: bool
) -> ReferenceUsed:
    compared = not math.isnan(share_below[index])
    return ReferenceUsed(
        policy=found.policy,
        revision=found.revision,
        count=summary.count,
        mean=summary.mean,
        std=summary.std,
        quantile=None if compared else summary.quantile,
        method=None if compared else summary.method,
        standard_error=None if compared else summary.standard_error,
        share_below=_number(share_below[index]),
        rewards=found.rows.tolist() if with_references else None,
    )


def _number(number: float) -> float | None:
    return None if math.isnan(number) else float(number)


def models_used(models: Mapping[str, Model]) -> dict[str, ModelUsed]:
    """The models behind the raw scores."""
    return {
        name: ModelUsed(
            fingerprint=model.fingerprint,
            fingerprint_kind=model.card.fingerprint.kind,
            engine=model.card.engine,
            dtype=model.card.dtype,
        )
        for name, model in models.items()
    }


def usage(estimates: Sequence[Estimate]) -> Usage:
    """Tokens of all that was scored; a score is cached when an equal item was computed in its stead."""
    return Usage(
        tokens=sum(e.tokens for e in estimates),
        tokens_computed=sum(e.tokens_computed for e in estimates),
        cached_scores=sum(e.tokens > 0 and e.tokens_computed == 0 for e in estimates),
    )


def timings(estimates: Sequence[Estimate], total_s: float) -> Timings:
    """The longest queue and device times of a request's items, and its whole time, in ms."""
    return Timings(
        queue=1e3 * max(_times(estimates, "queue_s"), default=0.0),
        compute=1e3 * max(_times(estimates, "compute_s"), default=0.0),
        total=1e3 * total_s,
    )


def _times(estimates: Sequence[Estimate], name: str) -> Iterator[float]:
    return (float(getattr(e, name)) for e in estimates)
