"""Which references a term has for a conversation, and where they come from."""

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from reward_service.baselines import CannedKey, Lookup, RowsKey, SnapshotKey
from reward_service.config import ResponseBaseline, StoredBaseline
from reward_service.engine.engine import Estimate, ItemError
from reward_service.errors import BaselineMissing, PromptRequired, ServiceError
from reward_service.objectives import Term
from reward_service.rewards.scales import Array
from reward_service.schemas import References
from reward_service.scoring.preparing import Prepared


@dataclass(frozen=True, slots=True)
class Found:
    """The references of one conversation for one term: `rows` (m,) in raw units, a single one for a constant.

    `identity` is equal for equal rows, so that their statistics are taken once per request.
    """

    source: str
    identity: object
    rows: Array
    policy: str | None = None
    revision: int | None = None


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered for a request: stored references, canned responses, responses of the request, all scored."""

    lookup: Lookup | ServiceError
    canned: Mapping[CannedKey, Array | ServiceError] = field(default_factory=dict)
    responses: Mapping[tuple[int, str], list[Estimate | ItemError]] = field(default_factory=dict)


def find(term: Term, fingerprint: str, index: int, prepared: Prepared, evidence: Evidence) -> Found | ServiceError:
    """The references of a term for the conversation at `index`, or why there are none."""
    if term.name in prepared.references:
        return _from_request(term, index, prepared.references[term.name], evidence)
    if isinstance(term.baseline, float):
        return _constant(term.baseline)
    if prepared.prompt_key is None:
        return PromptRequired(
            f"term {term.name!r} has a baseline for each prompt, and a conversation given as `text` has no prompt; "
            "give `messages` or `prompt` with `response`"
        )
    match term.baseline:
        case ResponseBaseline(response=response):
            return _from_canned(term, CannedKey(fingerprint, response, prepared.prompt_key), evidence)
        case StoredBaseline(policy=policy) as stored:
            return _from_store(term, stored, RowsKey(fingerprint, policy, prepared.prompt_key), evidence)
    raise TypeError(f"term {term.name!r} has no baseline; the configuration's checks let no such term through")


def _from_request(term: Term, index: int, given: References, evidence: Evidence) -> Found | ServiceError:
    if given.rewards is not None:
        return Found("request", (index, term.name), np.array(given.rewards, dtype=np.float64))
    estimates = evidence.responses[index, term.name]
    for place, estimate in enumerate(estimates):
        if isinstance(estimate, ItemError):
            return estimate.error.located(f"references.{term.name}.responses[{place}]")
    rows = [estimate.outputs[term.output] for estimate in estimates if isinstance(estimate, Estimate)]
    return Found("request", (index, term.name), np.array(rows))


def _from_canned(term: Term, key: CannedKey, evidence: Evidence) -> Found | ServiceError:
    outputs = evidence.canned[key]
    if isinstance(outputs, ServiceError):
        return outputs.located(f"the canned response of term {term.name!r}")
    return Found("response", (key, term.output), outputs[term.output : term.output + 1])


def _from_store(term: Term, stored: StoredBaseline, key: RowsKey, evidence: Evidence) -> Found | ServiceError:
    if isinstance(evidence.lookup, ServiceError):
        return evidence.lookup
    record = evidence.lookup.rows.get(key)
    count = 0 if record is None else len(record.rows)
    if record is not None and count >= stored.min_references:
        rows = record.rows.outputs[:, term.output]
        return Found("prompt", (key, term.output), rows, policy=stored.policy, revision=record.revision)
    if isinstance(stored.on_missing, float):
        return _constant(stored.on_missing)
    if stored.on_missing == "global":
        return _from_snapshot(term, stored, SnapshotKey(key.fingerprint, stored.policy), evidence.lookup)
    return BaselineMissing(
        f"term {term.name!r}: {count} references of policy {stored.policy!r} for this prompt, "
        f"{stored.min_references} needed (min_references); store them with PUT /v1/baselines, or set on_missing"
    )


def _from_snapshot(term: Term, stored: StoredBaseline, key: SnapshotKey, lookup: Lookup) -> Found | ServiceError:
    snapshot = lookup.snapshots.get(key)
    if snapshot is None:
        return BaselineMissing(
            f"term {term.name!r}: policy {stored.policy!r} has no global snapshot for the model's present fingerprint; "
            "build it with POST /v1/baselines/global"
        )
    rows = snapshot.rows.outputs[:, term.output]
    return Found("global", (key, term.output), rows, policy=stored.policy, revision=snapshot.revision)


def _constant(number: float) -> Found:
    return Found("constant", number, np.array([number]))
