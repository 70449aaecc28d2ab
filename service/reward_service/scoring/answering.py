"""The answer of a request from its evaluated terms."""

import math
from collections.abc import Mapping, Sequence

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
    of_terms = [
        term_scores(term, evaluated, with_references=with_references)
        for term, evaluated in zip(objective.terms, outcome.terms, strict=True)
    ]
    rows = zip(conversations, outcome.rewards.tolist(), outcome.errors, zip(*of_terms, strict=True), strict=True)
    return [
        ConversationScore(
            id=conversation.id,
            reward=reward if error is None else None,
            terms=[] if isinstance(conversation, Refused) else list(terms),
            error=None if error is None else error_body(error),
        )
        for conversation, reward, error, terms in rows
    ]


def term_scores(term: Term, evaluated: Evaluated, *, with_references: bool) -> list[TermScore]:
    """One term of each conversation."""
    columns = zip(
        _numbers(evaluated.raw),
        evaluated.raw_sources,
        _numbers(evaluated.std),
        _numbers(evaluated.baseline),
        evaluated.found,
        _references(term, evaluated, with_references=with_references),
        evaluated.values.value.tolist(),
        evaluated.errors,
        strict=True,
    )
    return [
        TermScore(
            name=term.name,
            model=term.model,
            label=term.label,
            raw=raw,
            raw_source=raw_source,
            std=std,
            temperature=term.temperature,
            baseline=baseline,
            baseline_source=found.source if found else None,
            reference=reference,
            transformed=transformed if error is None else None,
            weight=term.weight,
            error=error_body(error) if error else None,
        )
        for raw, raw_source, std, baseline, found, reference, transformed, error in columns
    ]


def _references(term: Term, evaluated: Evaluated, *, with_references: bool) -> list[ReferenceUsed | None]:
    """What the references of each conversation say; one object for those that share it and are not compared with it."""
    described: dict[tuple[Found, float | None], ReferenceUsed] = {}
    below = evaluated.share_below
    shares = [None] * len(evaluated.found) if below is None else _numbers(below)
    columns = zip(evaluated.found, evaluated.summaries, shares, strict=True)
    used: list[ReferenceUsed | None] = []
    for found, summary, share_below in columns:
        if found is None or summary is None or _is_single_number(term, found):
            used.append(None)
            continue
        key = (found, share_below)
        if key not in described:
            described[key] = _described(found, summary, share_below, with_references=with_references)
        used.append(described[key])
    return used


def _is_single_number(term: Term, found: Found) -> bool:
    return found.source in ("response", "constant") and term.transform.needs is Needs.BASELINE


def _described(found: Found, summary: Summary, share_below: float | None, *, with_references: bool) -> ReferenceUsed:
    compared = share_below is not None
    return ReferenceUsed(
        policy=found.policy,
        revision=found.revision,
        count=summary.count,
        mean=summary.mean,
        std=summary.std,
        quantile=None if compared else summary.quantile,
        method=None if compared else summary.method,
        standard_error=None if compared else summary.standard_error,
        share_below=share_below,
        rewards=found.rows.tolist() if with_references else None,
    )


def _numbers(numbers: Array) -> list[float | None]:
    return [None if math.isnan(number) else number for number in numbers.tolist()]


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
    """Tokens of all that was scored; a score is cached when it was kept, or an equal item computed in its stead."""
    return Usage(
        tokens=sum(e.tokens for e in estimates),
        tokens_computed=sum(e.tokens_computed for e in estimates),
        cached_scores=sum(e.tokens > 0 and e.tokens_computed == 0 for e in estimates),
    )


def timings(estimates: Sequence[Estimate], total_s: float) -> Timings:
    """The longest queue and device times of a request's items, and its whole time, in ms."""
    return Timings(
        queue=1e3 * max((e.queue_s for e in estimates), default=0.0),
        compute=1e3 * max((e.compute_s for e in estimates), default=0.0),
        total=1e3 * total_s,
    )
