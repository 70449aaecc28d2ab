"""What the tables of a file must agree on: names, scales, weights and baselines."""

from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from pydantic import ValidationError

from reward_service.config.access import access_problems
from reward_service.config.hosting import hosting_problems
from reward_service.config.schema import ResponseBaseline, StoredBaseline, TermConfig
from reward_service.problems import nearest
from reward_service.rewards.aggregation import AGGREGATIONS, check_terms
from reward_service.rewards.scales import check_clip
from reward_service.rewards.transforms import TRANSFORMS, Needs

WAYS = "a table with `policy` (stored references), a table with `response` (a canned response) or a number"


def cross_problems(tables: Mapping[str, Any]) -> list[str]:
    """Every disagreement between tables, as far as their parts are valid by themselves."""
    objectives = _tables(tables, "objectives")
    return [
        *access_problems(tables),
        *_repeated(tables, "api_keys"),
        *_repeated(tables, "models"),
        *_repeated(tables, "objectives"),
        *_unknown_default(tables),
        *(problem for path, table in _tables(tables, "models") for problem in hosting_problems(path, table)),
        *(problem for path, table in objectives for problem in _objective_problems(path, table, tables)),
    ]


def _tables(tables: Mapping[str, Any], section: str) -> list[tuple[str, Mapping[str, Any]]]:
    values = tables.get(section)
    values = values if isinstance(values, list) else []
    return [(f"{section}[{i}]", value) for i, value in enumerate(values) if isinstance(value, Mapping)]


def _names(tables: Mapping[str, Any], section: str) -> list[str]:
    return [str(table["name"]) for _, table in _tables(tables, section) if "name" in table]


def _repeated(tables: Mapping[str, Any], section: str) -> Iterator[str]:
    counts = Counter(_names(tables, section))
    for path, table in _tables(tables, section):
        name = str(table.get("name"))
        if counts[name] > 1:
            yield f"{path}.name: {name!r} names {counts[name]} {section}; each needs a name of its own"


def _unknown_default(tables: Mapping[str, Any]) -> Iterator[str]:
    server = tables.get("server")
    default = server.get("default_objective") if isinstance(server, Mapping) else None
    names = _names(tables, "objectives")
    if isinstance(default, str) and default not in names:
        yield f"server.default_objective: no objective {default!r}{nearest(default, names)}"


def _objective_problems(path: str, table: Mapping[str, Any], tables: Mapping[str, Any]) -> Iterator[str]:
    given = table.get("terms")
    given = given if isinstance(given, list) else []
    placed = [(f"{path}.terms[{i}]", term) for i, value in enumerate(given) if (term := _term(value)) is not None]
    yield from _repeated_terms(placed)
    for where, term in placed:
        yield from _term_problems(where, term, _names(tables, "models"))
    aggregate, k = table.get("aggregate"), table.get("k")
    if isinstance(aggregate, str) and aggregate not in AGGREGATIONS:
        yield f"{path}.aggregate: no aggregation {aggregate!r}{nearest(aggregate, AGGREGATIONS)}"
    elif isinstance(aggregate, str) and len(placed) == len(given) > 0 and isinstance(k, int | None):
        yield from _aggregate_problems(path, aggregate, k, [term for _, term in placed])


def _aggregate_problems(path: str, aggregate: str, k: int | None, terms: Sequence[TermConfig]) -> Iterator[str]:
    if all(term.transform in TRANSFORMS for term in terms):
        scales = [TRANSFORMS[term.transform].scale for term in terms]
        for problem in check_terms(aggregate, scales, [term.weight for term in terms], k):
            yield f"{path}: {problem}"


def _term(value: object) -> TermConfig | None:
    """The term, if it is valid by itself; what is wrong with it is told elsewhere."""
    try:
        return TermConfig.model_validate(value)
    except ValidationError:
        return None


def _repeated_terms(placed: Sequence[tuple[str, TermConfig]]) -> Iterator[str]:
    counts = Counter(term.key for _, term in placed)
    for where, term in placed:
        if counts[term.key] > 1:
            yield f"{where}.name: {counts[term.key]} terms are called {term.key!r}; give each a `name` of its own"


def _term_problems(where: str, term: TermConfig, models: Iterable[str]) -> Iterator[str]:
    names = list(models)
    if term.model not in names:
        yield f"{where}.model: no model {term.model!r}{nearest(term.model, names)}"
    if term.transform not in TRANSFORMS:
        yield f"{where}.transform: no transform {term.transform!r}{nearest(term.transform, TRANSFORMS)}"
        return
    yield from _baseline_problems(where, term)
    if term.clip is not None:
        try:
            check_clip(TRANSFORMS[term.transform].scale, *term.clip)
        except ValueError as error:
            yield f"{where}.clip: {term.clip} is not valid: {error}"


def _baseline_problems(where: str, term: TermConfig) -> Iterator[str]:
    needs, baseline = TRANSFORMS[term.transform].needs, term.baseline
    if needs is Needs.NOTHING and baseline is not None:
        yield f"{where}.baseline: {term.transform} uses no baseline; remove it, or choose a centered transform"
    if needs is Needs.BASELINE and baseline is None:
        yield f"{where}.baseline: {term.transform} needs a baseline: {WAYS}"
    if needs is Needs.REFERENCES:
        yield from _rows_problems(where, term)


def _rows_problems(where: str, term: TermConfig) -> Iterator[str]:
    baseline = term.baseline
    if not isinstance(baseline, StoredBaseline | ResponseBaseline):
        yield f"{where}.baseline: {term.transform} compares with references: a table with `policy` or `response`"
        return
    if isinstance(baseline, ResponseBaseline) and term.transform == "standardize":
        yield f"{where}.baseline: standardize needs at least 2 references and a canned response is one; use `policy`"
    if isinstance(baseline, StoredBaseline):
        if isinstance(baseline.on_missing, float):
            yield (
                f"{where}.baseline.on_missing: {baseline.on_missing} cannot stand for the references that "
                f"{term.transform} needs; valid: 'error', 'global'"
            )
        for key in sorted({"quantile", "method"} & baseline.model_fields_set):
            yield f"{where}.baseline.{key}: {term.transform} uses every reference, not a statistic; remove {key!r}"
