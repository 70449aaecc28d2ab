"""A configuration is read whole or refused with every problem it has."""

from pathlib import Path

import pytest

from reward_service.config import ClassifierConfig, ResponseBaseline, StoredBaseline, parse_config, read_config
from reward_service.errors import ConfigError

GOOD = """
[server]
port = 9000
default_objective = "both"

[store]
url = "sqlite:///var/rewards.db"

[limits]
request_timeout_s = 60

[[models]]
name = "helpful"
source = "${MODELS}/helpful"
dtype = "float32"
on_unfinished = -5.0
temperature = 2

[[models]]
name = "harmless"
kind = "classifier"
source = "org/harmless"

[[objectives]]
name = "both"
aggregate = "and"

[[objectives.terms]]
model = "helpful"
transform = "log_sigmoid_centered"
clip = [-30.0, 0.0]
baseline = { policy = "sft", quantile = 0.9, on_missing = "global" }

[[objectives.terms]]
model = "harmless"
transform = "log_sigmoid_centered"
negate = true
weight = 2
baseline = { response = "I can't help with that." }
"""


def test_a_whole_file_is_read_with_types_defaults_and_environment(tmp_path: Path) -> None:
    file = tmp_path / "service.toml"
    file.write_text(GOOD)
    config = read_config(file, {"MODELS": "org"})
    helpful, harmless = config.models
    assert (helpful.source, helpful.dtype, helpful.on_unfinished, helpful.temperature) == (
        "org/helpful",
        "float32",
        -5,
        2,
    )
    assert harmless == ClassifierConfig(name="harmless", source="org/harmless")
    first, second = config.objectives[0].terms
    assert first.baseline == StoredBaseline(policy="sft", quantile=0.9, on_missing="global")
    assert second.baseline == ResponseBaseline(response="I can't help with that.")
    assert (first.key, second.key, second.weight) == ("helpful", "harmless", 2.0)
    assert (config.server.port, config.limits.request_timeout_s, config.limits.max_queued_tokens) == (
        9000,
        60,
        4_000_000,
    )


MODEL = '[[models]]\nname = "m"\nsource = "org/m"\n'
OBJECTIVE = MODEL + '[[objectives]]\nname = "o"\naggregate = "{aggregate}"\n{more}\n'
TERM = '[[objectives.terms]]\nmodel = "m"\n'
CENTERED = 'transform = "log_sigmoid_centered"\nbaseline = { policy = "sft" }\n'


def objective(aggregate: str = "and", more: str = "", terms: str = TERM + CENTERED) -> str:
    return OBJECTIVE.format(aggregate=aggregate, more=more) + terms


def term(text: str) -> str:
    return objective(terms=TERM + text)


BAD = {
    "not TOML": ("[[models]\n", ["cannot be read", "line 1"]),
    "no model": ("", ["models: at least one [[models]] table is required"]),
    "unknown table": (MODEL + "[sever]\n", ["sever: unknown field 'sever'", "did you mean 'server'?"]),
    "unknown server key": (
        MODEL + "[server]\nprot = 1\n",
        ["server.prot", "did you mean 'port'?", "valid: default_objective"],
    ),
    "port out of range": (MODEL + "[server]\nport = 70000\n", ["server.port: 70000", "less than or equal to 65535"]),
    "port of another type": (MODEL + '[server]\nport = "8000"\n', ["server.port: '8000'", "valid integer"]),
    "open to the network": (
        MODEL + '[server]\nhost = "0.0.0.0"\n',
        ["server.host: '0.0.0.0'", "no API keys", "127.0.0.1"],
    ),
    "unknown default": (
        objective() + '[server]\ndefault_objective = "p"\n',
        ["server.default_objective: no objective 'p'", "valid: o"],
    ),
    "unknown store": (MODEL + '[store]\nurl = "mysql://x"\n', ["store.url: 'mysql://...'", "memory://", "sqlite:///"]),
    "store without file": (MODEL + '[store]\nurl = "sqlite:///"\n', ["store.url", "names no file"]),
    "limit of zero": (
        MODEL + "[limits]\nmax_queued_tokens = 0\n",
        ["limits.max_queued_tokens: 0", "greater than or equal to 1"],
    ),
    "timeout not finite": (MODEL + "[limits]\nrequest_timeout_s = inf\n", ["limits.request_timeout_s", "finite"]),
    "model without source": ('[[models]]\nname = "m"\n', ["models[0].source: required"]),
    "model without name": ('[[models]]\nsource = "m"\n', ["models[0].name: required"]),
    "bad model name": ('[[models]]\nname = "a b"\nsource = "m"\n', ["models[0].name: 'a b' does not match"]),
    "misspelt model key": (MODEL + 'dtpye = "float32"\n', ["models[0].dtpye: unknown field", "did you mean 'dtype'?"]),
    "bad dtype": (MODEL + 'dtype = "int8"\n', ["models[0].dtype: 'int8'", "'bfloat16', 'float16' or 'float32'"]),
    "bad kind": (MODEL + 'kind = "judge"\n', ["models[0].kind: 'judge'", "'classifier'"]),
    "bad device": (MODEL + 'device = "tpu"\n', ["models[0].device: 'tpu'", "auto|cpu|cuda"]),
    "temperature of zero": (MODEL + "temperature = 0.0\n", ["models[0].temperature: 0.0", "greater than 0"]),
    "bad on_unfinished": (
        MODEL + 'on_unfinished = "drop"\n',
        ["models[0].on_unfinished: 'drop'", "'score' or 'error'"],
    ),
    "names repeat": (MODEL + MODEL, ["models[0].name: 'm' names 2 models", "models[1].name"]),
    "models not a list": ("[models]\nname = 'm'\n", ["models: expected tables written as [[models]]"]),
    "variable not set": (
        '[[models]]\nname = "m"\nsource = "${HOME_OF_MODELS}"\n',
        ["models[0].source: ${HOME_OF_MODELS} is not set"],
    ),
    "missing folder": ('[[models]]\nname = "m"\nsource = "./nowhere"\n', ["models[0].source: no folder './nowhere'"]),
    "objective without terms": (
        MODEL + '[[objectives]]\nname = "o"\naggregate = "and"\n',
        ["objectives[0].terms: required"],
    ),
    "unknown aggregate": (objective("adn"), ["objectives[0].aggregate: no aggregation 'adn'", "did you mean 'and'?"]),
    "unknown transform": (
        term('transform = "log_sigmod"\n'),
        ["terms[0].transform: no transform 'log_sigmod'", "did you mean 'log_sigmoid'?"],
    ),
    "unknown model": (
        objective(terms='[[objectives.terms]]\nmodel = "n"\n' + CENTERED),
        ["terms[0].model: no model 'n'", "valid: m"],
    ),
    "terms repeat": (objective(terms=(TERM + CENTERED) * 2), ["terms[1].name: 2 terms are called 'm'"]),
    "negative weight": (term(CENTERED + "weight = -1.0\n"), ["terms[0].weight: -1.0", "greater than or equal to 0"]),
    "clip of three": (term(CENTERED + "clip = [-3.0, -2.0, -1.0]\n"), ["terms[0].clip", "at most 2"]),
    "clip upside down": (term(CENTERED + "clip = [-1.0, -3.0]\n"), ["terms[0].clip: [-1.0, -3.0]", "first bound"]),
    "baseline missing": (
        term('transform = "centered"\n'),
        ["terms[0].baseline: centered needs a baseline", "`policy`", "`response`"],
    ),
    "baseline not used": (
        term('transform = "identity"\nbaseline = 1.0\n'),
        ["terms[0].baseline: identity uses no baseline"],
    ),
    "bad quantile": (
        term('transform = "centered"\nbaseline = { policy = "p", quantile = 1.5 }\n'),
        ["baseline.quantile: 1.5", "less than 1"],
    ),
    "bad on_missing": (
        term('transform = "centered"\nbaseline = { policy = "p", on_missing = "skip" }\n'),
        ["baseline.on_missing: 'skip'", "'error' or 'global'"],
    ),
    "misspelt baseline key": (
        term('transform = "centered"\nbaseline = { policy = "p", quantil = 0.5 }\n'),
        ["baseline.quantil", "did you mean 'quantile'?"],
    ),
    "references from a number": (
        term('transform = "par"\nbaseline = 1.0\n'),
        ["terms[0].baseline: par compares with references"],
    ),
    "standardize by one": (
        term('transform = "standardize"\nbaseline = { response = "no" }\n'),
        ["standardize needs at least 2 references"],
    ),
    "quantile of par": (
        term('transform = "par"\nbaseline = { policy = "p", quantile = 0.5 }\n'),
        ["baseline.quantile: par uses every reference"],
    ),
    "number for par": (
        term('transform = "par"\nbaseline = { policy = "p", on_missing = 0.0 }\n'),
        ["baseline.on_missing: 0.0", "'error', 'global'"],
    ),
    "and over real": (objective(terms=TERM + 'transform = "identity"\n'), ["objectives[0]:", "and", "log_probability"]),
    "k missing": (objective("k_of_n"), ["objectives[0]", "k"]),
    "k too large": (objective("k_of_n", "k = 3"), ["objectives[0]", "3"]),
    "weight in or": (objective("or", terms=TERM + CENTERED + "weight = 0.5\n"), ["objectives[0]", "0.5"]),
    "all weights zero": (objective(terms=TERM + CENTERED + "weight = 0.0\n"), ["objectives[0]", "weight"]),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_is_refused_with_path_value_and_what_is_valid(name: str, tmp_path: Path) -> None:
    text, expected = BAD[name]
    file = tmp_path / "service.toml"
    file.write_text(text)
    with pytest.raises(ConfigError) as caught:
        read_config(file, {})
    message = str(caught.value)
    assert [part for part in expected if part not in message] == [], message
    assert "Value error" not in message
    assert "literal[" not in message


def test_every_problem_is_reported_at_once_even_beside_parts_that_are_not_valid() -> None:
    tables = {
        "server": {"port": -1, "default_objective": "nothing"},
        "models": [{"name": "m"}, {"name": "n", "source": "org/n", "dtype": "int4"}],
        "objectives": [
            {"name": "o", "aggregate": "nand", "terms": [{"model": "nn", "transform": "centered", "weight": 1.0}]},
            {"name": "p", "aggregate": "and", "terms": [{"model": "n", "transform": "identity", "wieght": 1.0}]},
        ],
        "limit": {},
    }
    with pytest.raises(ConfigError) as caught:
        parse_config(tables, {})
    found = [problem.split(":")[0] for problem in caught.value.problems]
    assert sorted(found) == sorted(
        [
            "limit",
            "models[0].source",
            "models[1].dtype",
            "objectives[0].aggregate",
            "objectives[0].terms[0].baseline",
            "objectives[0].terms[0].model",
            "objectives[1].terms[0].wieght",
            "server.default_objective",
            "server.port",
        ]
    )
