"""Which references a term has for a conversation, and where they come from."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from reward_service.baselines import CannedKey, Lookup, RowsKey, SnapshotKey, Statistic
from reward_service.config import ResponseBaseline, StoredBaseline
from reward_service.engine.engine import Estimate, ItemError
from reward_service.errors import BaselineMissing, PromptRequired, ServiceError
from reward_service.objectives import Term
from reward_service.rewards.references import Summary
from reward_service.rewards.scales import Array
from reward_service.rewards.transforms import Needs
from reward_service.schemas import References
from reward_service.scoring.preparing import Prepared, Refused


@dataclass(frozen=True, slots=True, eq=False)
class Found:
    """The references of one or more conversations for one term: `rows` (m,) in raw units, a single one for a constant.

    Conversations that have the same references share one Found, so that their statistics are taken once per request;
    `summaries` holds those that stored rows have kept from earlier requests.
    """

    source: str
    rows: Array
    policy: str | None = None
    revision: int | None = None
    summaries: dict[Statistic, Summary] = field(default_factory=dict, repr=False)


@dataclass(frozen=True, slots=True)
class Evidence:
    """What was gathered for a request: stored references, canned responses, responses of the request, all scored."""

    lookup: Lookup | ServiceError
    canned: Mapping[CannedKey, Array | ServiceError] = field(default_factory=dict)
    responses: Mapping[tuple[int, str], list[Estimate | ItemError]] = field(default_factory=dict)


def found_for(
    term: Term, fingerprint: str, conversations: Sequence[Prepared | Refused], evidence: Evidence
) -> list[Found | ServiceError | None]:
    """The references of a term for each conversation, or why there are none; None where nobody asks for any."""
    if term.transform.needs is Needs.NOTHING:
        return [None] * len(conversations)
    search = _Search(term, fingerprint, evidence)
    return [None if isinstance(one, Refused) else search.find(i, one) for i, one in enumerate(conversations)]


class _Search:
    """Looks for the references of one term of one request, once for each prompt."""

    def __init__(self, term: Term, fingerprint: str, evidence: Evidence) -> None:
        self._term = term
        self._fingerprint = fingerprint
        self._evidence = evidence
        self._by_prompt: dict[str | None, Found | ServiceError] = {}
        self._snapshot: Found | ServiceError | None = None

    def find(self, index: int, prepared: Prepared) -> Found | ServiceError:
        """The references for the conversation at `index`."""
        if self._term.name in prepared.references:
            return self._from_request(index, prepared.references[self._term.name])
        key = prepared.prompt_key
        if key not in self._by_prompt:
            self._by_prompt[key] = self._of_prompt(key)
        return self._by_prompt[key]

    def _from_request(self, index: int, given: References) -> Found | ServiceError:
        name = self._term.name
        if given.rewards is not None:
            return Found("request", np.array(given.rewards, dtype=np.float64))
        estimates = self._evidence.responses[index, name]
        for place, estimate in enumerate(estimates):
            if isinstance(estimate, ItemError):
                return estimate.error.located(f"references.{name}.responses[{place}]")
        outputs = [estimate.outputs[self._term.output] for estimate in estimates if isinstance(estimate, Estimate)]
        return Found("request", np.array(outputs))

    def _of_prompt(self, prompt_key: str | None) -> Found | ServiceError:
        baseline, name = self._term.baseline, self._term.name
        if isinstance(baseline, float):
            return _constant(baseline)
        if prompt_key is None:
            return PromptRequired(
                f"term {name!r} has a baseline for each prompt, and a conversation given as `text` has no prompt; "
                "give `messages` or `prompt` with `response`"
            )
        match baseline:
            case ResponseBaseline(response=response):
                return self._from_canned(CannedKey(self._fingerprint, response, prompt_key))
            case StoredBaseline(policy=policy):
                return self._from_store(baseline, RowsKey(self._fingerprint, policy, prompt_key))
        raise TypeError(f"term {name!r} has no baseline; the configuration's checks let no such term through")

    def _from_canned(self, key: CannedKey) -> Found | ServiceError:
        outputs = self._evidence.canned[key]
        if isinstance(outputs, ServiceError):
            return outputs.located(f"the canned response of term {self._term.name!r}")
        return Found("response", outputs[self._term.output : self._term.output + 1])

    def _from_store(self, stored: StoredBaseline, key: RowsKey) -> Found | ServiceError:
        lookup = self._evidence.lookup
        if isinstance(lookup, ServiceError):
            return lookup
        record = lookup.rows.get(key)
        count = 0 if record is None else len(record.rows)
        if record is not None and count >= stored.min_references:
            rows = record.rows.outputs[:, self._term.output]
            return Found("prompt", rows, stored.policy, record.revision, record.summaries)
        if isinstance(stored.on_missing, float):
            return _constant(stored.on_missing)
        if stored.on_missing == "global":
            return self._from_snapshot(stored.policy, lookup)
        return BaselineMissing(
            f"term {self._term.name!r}: {count} references of policy {stored.policy!r} for this prompt, "
            f"{stored.min_references} needed (min_references); store them with PUT /v1/baselines, or set on_missing"
        )

    def _from_snapshot(self, policy: str, lookup: Lookup) -> Found | ServiceError:
        if self._snapshot is None:
            self._snapshot = self._pooled(policy, lookup)
        return self._snapshot

    def _pooled(self, policy: str, lookup: Lookup) -> Found | ServiceError:
        snapshot = lookup.snapshots.get(SnapshotKey(self._fingerprint, policy))
        if snapshot is None:
            return BaselineMissing(
                f"term {self._term.name!r}: policy {policy!r} has no global snapshot for the model's present "
                "fingerprint; build it with POST /v1/baselines/global"
            )
        rows = snapshot.rows.outputs[:, self._term.output]
        return Found("global", rows, policy=policy, revision=snapshot.revision)


def _constant(number: float) -> Found:
    return Found("constant", np.array([number]))
