"""Keys in the configuration: made by a command, read from the environment, refused with a sentence that hides them."""

import tomllib

import pytest

from reward_service.config import ServerConfig, parse_config
from reward_service.errors import ConfigError
from tests.access.configs import KEYS, MODEL, digest, key_table
from tests.process import command

OPEN_HOST = '[server]\nhost = "0.0.0.0"\n'
SECRET = "rs_my-secret-key"
TABLE = key_table("trainer", SECRET, ["score"])


def problems(toml: str, environment: dict[str, str] | None = None) -> str:
    with pytest.raises(ConfigError) as caught:
        parse_config(tomllib.loads(toml), environment or {})
    return str(caught.value)


def test_an_address_of_the_network_needs_keys() -> None:
    told = problems(MODEL + OPEN_HOST)
    for part in ("server.host: '0.0.0.0'", "no API keys", "127.0.0.1", "[[api_keys]]"):
        assert part in told
    assert parse_config(tomllib.loads(MODEL + OPEN_HOST + TABLE), {}).server == ServerConfig(host="0.0.0.0")


def test_a_digest_comes_from_the_environment() -> None:
    toml = MODEL + OPEN_HOST + TABLE.replace(digest(SECRET), "${TRAINER_KEY_SHA256}")
    config = parse_config(tomllib.loads(toml), {"TRAINER_KEY_SHA256": digest(SECRET)})
    assert config.api_keys[0].sha256 == digest(SECRET)
    assert "${TRAINER_KEY_SHA256} is not set" in problems(toml)
    assert "api_keys[0].sha256: 0 characters" in problems(toml, {"TRAINER_KEY_SHA256": ""})


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (TABLE.replace(digest(SECRET), SECRET), ["api_keys[0].sha256: 16 characters", "not shown", "64 of 0-9a-f"]),
        (TABLE.replace(digest(SECRET), digest(SECRET).upper()), ["api_keys[0].sha256: 64 characters"]),
        (TABLE.replace("'score'", "'scores'"), ["api_keys[0].scopes[0]: 'scores'", "'score', 'baselines'"]),
        (TABLE.replace("['score']", "[]"), ["api_keys[0].scopes: []", "at least 1"]),
        (TABLE.replace("['score']", "['score', 'score']"), ["api_keys[0].scopes", "repeats"]),
        (TABLE.replace("scopes", "scope"), ["api_keys[0].scope: unknown field", "did you mean 'scopes'?"]),
        (TABLE.replace("trainer", "a trainer"), ["api_keys[0].name: 'a trainer'"]),
        (TABLE * 2, ["api_keys[1].name: 'trainer' names 2", "api_keys[1].sha256: the same as that of api_keys[0]"]),
        ("[api_keys]\nname = 'x'\n", ["api_keys: expected tables written as [[api_keys]]"]),
        ("[limits]\nmax_held_bytes = 2000000\n", ["limits.max_held_bytes: 2000000", "max_request_bytes"]),
        ("[limits]\nbody_timeout_s = 0\n", ["limits.body_timeout_s: 0", "greater than 0"]),
        ("[limits]\nmax_request_bytes = 10\n", ["limits.max_request_bytes: 10", "1024"]),
    ],
)
def test_a_wrong_table_is_refused_and_no_key_is_quoted(table: str, expected: list[str]) -> None:
    told = problems(MODEL + table)
    assert [part for part in expected if part not in told] == [], told
    assert SECRET not in told


def test_the_command_makes_a_key_and_the_table_that_lets_it_in() -> None:
    made = [command("key", "trainer", "--scope", "score", "--scope", "baselines") for _ in range(2)]
    assert [done.returncode for done in made] == [0, 0]
    (key, table), (other, _) = [_parts(done.stdout) for done in made]
    assert key != other
    assert len(key) >= 43
    (config,) = parse_config(tomllib.loads(MODEL + table), {}).api_keys
    assert (config.name, config.sha256, config.scopes) == ("trainer", digest(key), ["score", "baselines"])


def test_the_command_refuses_what_a_configuration_would_refuse() -> None:
    done = command("key", "trainer", "--scope", "scores")
    assert done.returncode == 2
    assert "'scores' is not valid" in " ".join(done.stderr.replace("│", " ").split())


def _parts(printed: str) -> tuple[str, str]:
    """The key and its table."""
    key = next(line for line in printed.splitlines() if line.startswith("rs_"))
    assert key not in KEYS.values()
    return key, printed[printed.index("[[api_keys]]") :]
