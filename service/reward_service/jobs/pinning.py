"""What a job was begun with, and what is different now: inputs, columns, objective, models and baselines."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from reward_service.errors import JobStopped
from reward_service.jobs.inputs import InputFile
from reward_service.jobs.plan import JobPlan
from reward_service.problems import shown
from reward_service.schemas import ScoreAnswer

Json = Mapping[str, Any]
MOST_TOLD = 10


def manifest_of(plan: JobPlan, inputs: Sequence[InputFile]) -> dict[str, Any]:
    """What decides which conversations a job scores and what it writes of them."""
    return {
        "format": 2,
        "inputs": [{"name": file.name, **file.identity} for file in inputs],
        "objective": plan.objective,
        "fields": dict(plan.fields),
        "keep": list(plan.keep),
    }


def pin_of(answer: ScoreAnswer) -> dict[str, Any]:
    """What decides the numbers of an answer; JobStopped when its store could not tell the state of the baselines."""
    policies = {
        term.baseline["policy"]
        for term in answer.recipe.terms
        if isinstance(term.baseline, dict) and "policy" in term.baseline
    }
    if unknown := policies - set(answer.baselines):
        raise JobStopped(f"the store does not tell the baselines of {', '.join(sorted(unknown))}; try again later")
    return {
        "objective": answer.objective,
        "objective_hash": answer.objective_hash,
        "recipe": answer.recipe.model_dump(mode="json"),
        "models": {name: used.model_dump(mode="json") for name, used in answer.models.items()},
        "baselines": {name: used.revision for name, used in answer.baselines.items()},
    }


def expectation(pin: Json, *, allow_baseline_changes: bool) -> dict[str, Any]:
    """What each request expects of the service."""
    models = {name: used["fingerprint"] for name, used in pin["models"].items()}
    baselines = {} if allow_baseline_changes else pin["baselines"]
    return {"objective_hash": pin["objective_hash"], "models": models, "baselines": baselines}


def check_unchanged(before: Json, now: Json, what: str) -> None:
    """JobStopped names everything that is different."""
    changes = list(differences(before, now))
    if changes:
        more = [f"and {len(changes) - MOST_TOLD} more"] if len(changes) > MOST_TOLD else []
        told = "\n".join(f"  - {change}" for change in [*changes[:MOST_TOLD], *more])
        raise JobStopped(f"{what}:\n{told}\nPut it back as it was, or give --restart to score everything anew.")


def differences(before: object, now: object, path: str = "") -> Iterator[str]:
    """One sentence for each place where two documents differ."""
    if isinstance(before, Mapping) and isinstance(now, Mapping):
        for key in dict.fromkeys([*before, *now]):
            yield from differences(before.get(key), now.get(key), f"{path}.{key}" if path else str(key))
    elif (
        isinstance(before, list) and isinstance(now, list) and (first := _by_name(before)) and (second := _by_name(now))
    ):
        yield from differences(first, second, path)
        yield from _reordered(first, second, path)
    elif isinstance(before, list) and isinstance(now, list) and len(before) == len(now):
        for place, (one, other) in enumerate(zip(before, now, strict=True)):
            yield from differences(one, other, f"{path}[{place}]")
    elif before != now:
        yield f"{path}: {_told(before)} before, {_told(now)} now"


def _by_name(documents: Sequence[object]) -> dict[str, Json]:
    """Documents by their names; empty when one of them has no name of its own."""
    named = {one["name"]: one for one in documents if isinstance(one, Mapping) and "name" in one}
    return named if len(named) == len(documents) else {}


def _reordered(before: Json, now: Json, path: str) -> Iterator[str]:
    """One sentence when what stands in both stands in another order."""
    kept, places = [name for name in before if name in now], [name for name in now if name in before]
    for place, (one, other) in enumerate(zip(kept, places, strict=True), 1):
        if one != other:
            yield f"{path}: in another order: number {place} of them is {shown(one)} before, {shown(other)} now"
            return


def _told(value: object) -> str:
    return "absent" if value is None else shown(value)
