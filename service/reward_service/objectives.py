"""Objective: terms and an aggregation, built from the configuration and the loaded models."""

import hashlib
import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np

from reward_service.catalog import Model, Models
from reward_service.config import BaselineConfig, Config, ObjectiveConfig, StoredBaseline, TermConfig
from reward_service.errors import ConfigError, InvalidRequest, ObjectiveNotFound
from reward_service.problems import nearest
from reward_service.rewards.aggregation import AGGREGATIONS, Aggregation
from reward_service.rewards.references import Ragged
from reward_service.rewards.scales import Array, Values, clip, negate
from reward_service.rewards.transforms import TRANSFORMS, Transform, calibrate
from reward_service.schemas import ObjectiveCard, Objectives, Recipe, TermRecipe


@dataclass(frozen=True, slots=True)
class Term:
    """One model's part in an objective; `output` is the index of its label, `output_name` the model's name for it."""

    name: str
    model: str
    label: int | str
    output: int
    output_name: str
    transform: Transform
    negate: bool
    clip: tuple[float, float] | None
    weight: float
    temperature: float
    baseline: BaselineConfig | None

    @np.errstate(over="ignore", invalid="ignore")
    def apply(self, raw: Array, baseline: Array | None, references: Ragged | None) -> Values:
        """Calibrate, transform, negate and clip n raw scores; all inputs are in raw units of the model.

        A number too large for a float64 becomes an infinity or NaN, which the caller makes an error of its item.
        """
        values = self.transform.apply(
            calibrate(raw, self.temperature),
            None if baseline is None else calibrate(baseline, self.temperature),
            None if references is None else calibrate(references, self.temperature),
        )
        values = negate(values) if self.negate else values
        return clip(values, *self.clip) if self.clip else values

    @property
    def takes_references(self) -> bool:
        """Whether a request may bring references of its own for this term."""
        return isinstance(self.baseline, StoredBaseline)

    @property
    def recipe(self) -> TermRecipe:
        """The term as it stands in answers."""
        return TermRecipe(
            name=self.name,
            model=self.model,
            label=self.label,
            transform=self.transform.name,
            negate=self.negate,
            clip=self.clip,
            weight=self.weight,
            temperature=self.temperature,
            baseline=_plain(self.baseline),
        )


@dataclass(frozen=True)
class Objective:
    """A named recipe; `hash` covers everything in it but the models' weights, which have fingerprints."""

    name: str
    terms: tuple[Term, ...]
    aggregation: Aggregation
    k: int | None
    recipe: Recipe
    hash: str

    @np.errstate(over="ignore", invalid="ignore")
    def combine(self, terms: Sequence[Values]) -> Array:
        """The rewards (n,) of n conversations from their transformed terms."""
        return self.aggregation.apply(terms, self._weights, self.k)

    @cached_property
    def _weights(self) -> Array:
        return np.array([term.weight for term in self.terms])

    @cached_property
    def models(self) -> list[str]:
        """The models that it needs, each once, in order."""
        return list(dict.fromkeys(term.model for term in self.terms))

    @cached_property
    def policies(self) -> list[str]:
        """The policies whose stored references it needs."""
        stored = [term.baseline for term in self.terms if isinstance(term.baseline, StoredBaseline)]
        return list(dict.fromkeys(baseline.policy for baseline in stored))


class ObjectiveCatalog:
    """The objectives of one service by name, fitted to its models; ConfigError when a model has no such label."""

    def __init__(self, config: Config, models: Models) -> None:
        self._config = config
        self._objectives = build_objectives(config, models)
        names = list(self._objectives)
        self._default = config.server.default_objective or (names[0] if len(names) == 1 else None)

    def fit(self, models: Models) -> None:
        """Means the outputs of `models` from now on; ConfigError when they are not the same, and nothing changes."""
        fitted = build_objectives(self._config, models)
        if problems := [
            problem for name, one in fitted.items() for problem in _other_outputs(self._objectives[name], one)
        ]:
            raise ConfigError("objectives", problems)
        self._objectives = fitted

    def choose(self, name: str | None) -> Objective:
        """The named objective, or the default one."""
        if name is None and self._default is None:
            raise InvalidRequest(
                "objective: required, since the service has no default_objective; "
                f"valid: {', '.join(self._objectives) or '(none)'}"
            )
        chosen = name if name is not None else str(self._default)
        if chosen not in self._objectives:
            raise ObjectiveNotFound(f"objective: no objective {chosen!r}{nearest(chosen, self._objectives)}")
        return self._objectives[chosen]

    def cards(self) -> Objectives:
        """All objectives, with their recipes and hashes."""
        return Objectives(
            objectives=[
                ObjectiveCard(name=o.name, objective_hash=o.hash, default=o.name == self._default, recipe=o.recipe)
                for o in self._objectives.values()
            ]
        )


def build_objectives(config: Config, models: Models) -> dict[str, Objective]:
    """The objectives of a configuration; ConfigError names every label that its model does not have."""
    problems: list[str] = []
    built = {
        objective.name: _objective(objective, models, f"objectives[{i}]", problems)
        for i, objective in enumerate(config.objectives)
    }
    if problems:
        raise ConfigError("objectives", problems)
    return built


def raw_outputs(model: Model) -> Objective:
    """Every output of a model as a term of its own, for the raw scores alone; no configured name has a colon."""
    outputs = [
        TermConfig(model=model.name, name=f"output-{i}", label=i, transform="identity")
        for i in range(len(model.card.labels))
    ]
    terms = tuple(
        replace(_term(one, {model.name: model}, "", []), label=model.card.labels[int(one.label)]) for one in outputs
    )
    recipe = Recipe(aggregate="mean", k=None, terms=[term.recipe for term in terms])
    return Objective(f"model:{model.name}", terms, AGGREGATIONS["mean"], None, recipe, _hash(recipe))


def _other_outputs(before: Objective, after: Objective) -> list[str]:
    """The terms whose label is another output now."""
    return [
        f"{after.name}, term {new.name!r}: label {new.label!r} of model {new.model!r} was {old.output_name!r} and would"
        f" be {new.output_name!r}"
        for old, new in zip(before.terms, after.terms, strict=True)
        if old.output_name != new.output_name
    ]


def _objective(config: ObjectiveConfig, models: Models, path: str, problems: list[str]) -> Objective:
    terms = tuple(_term(term, models, f"{path}.terms[{i}]", problems) for i, term in enumerate(config.terms))
    recipe = Recipe(aggregate=config.aggregate, k=config.k, terms=[term.recipe for term in terms])
    return Objective(
        name=config.name,
        terms=terms,
        aggregation=AGGREGATIONS[config.aggregate],
        k=config.k,
        recipe=recipe,
        hash=_hash(recipe),
    )


def _term(config: TermConfig, models: Models, path: str, problems: list[str]) -> Term:
    model, output = models[config.model], 0
    try:
        output = model.output(config.label)
    except InvalidRequest as error:
        problems.append(f"{path}.{error.detail}")
    return Term(
        name=config.key,
        model=config.model,
        label=config.label,
        output=output,
        output_name=model.card.labels[output],
        transform=TRANSFORMS[config.transform],
        negate=config.negate,
        clip=(config.clip[0], config.clip[1]) if config.clip else None,
        weight=config.weight,
        temperature=model.config.temperature,
        baseline=config.baseline,
    )


def _plain(baseline: BaselineConfig | None) -> object:
    return baseline if baseline is None or isinstance(baseline, float) else baseline.model_dump(mode="json")


def _hash(recipe: Recipe) -> str:
    canonical = json.dumps(recipe.model_dump(mode="json"), sort_keys=True, separators=(",", ":"))
    return f"sha256:{hashlib.sha256(canonical.encode()).hexdigest()}"
