"""The arms as objectives of one service, and the service itself."""

from collections.abc import Iterator
from contextlib import contextmanager

from benchmarks.learning.preparing import Prepared
from benchmarks.learning.sizes import Sizes
from benchmarks.learning.world import ATTRIBUTES
from benchmarks.servers import serving

POLICY = "initial"


def weighted(weight: float) -> str:
    """The arm that sums calibrated scores with this weight of detail; brevity has the rest."""
    return f"weighted-{weight:g}"


def weights_of(arm: str) -> tuple[float, float] | None:
    """The weights of an arm that sums scores; None for `and`."""
    if arm == "and":
        return None
    weight = float(arm.removeprefix("weighted-"))
    return weight, 1 - weight


RAW_SUM = weighted(0.5)


@contextmanager
def serving_arms(prepared: Prepared, sizes: Sizes) -> Iterator[str]:
    """The URL of a service with both reward models and an objective for each arm."""
    arms = sorted({RAW_SUM, *map(weighted, sizes.weights), "and"})
    models = "".join(_model(prepared, name) for name in ATTRIBUTES)
    with serving('[store]\nurl = "memory://"\n' + models + "".join(map(_objective, arms))) as url:
        yield url


def _model(prepared: Prepared, name: str) -> str:
    return (
        f'[[models]]\nname = "{name}"\nsource = "{prepared.folder / name}"\ndtype = "float32"\nmax_tokens = 256\n'
        f'compile = false\nparity = "self"\n'
        f"temperature = {prepared.temperatures[name]}\n"
    )


def _objective(arm: str) -> str:
    weights = weights_of(arm)
    if weights is None:
        how, aggregate, weights = "log_sigmoid_centered", "and", (1.0, 1.0)
        how += f'"\nbaseline = {{ policy = "{POLICY}", quantile = 0.85, on_missing = "error" }}\n'
    else:
        how, aggregate = 'identity"\n', "weighted_sum"
    terms = (
        f'[[objectives.terms]]\nmodel = "{name}"\nweight = {weight}\ntransform = "{how}'
        for name, weight in zip(ATTRIBUTES, weights, strict=True)
    )
    return f'[[objectives]]\nname = "{arm}"\naggregate = "{aggregate}"\n{"".join(terms)}'
