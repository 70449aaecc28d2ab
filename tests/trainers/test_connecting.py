"""A connection is found by arguments or the environment, and lives in every process and event loop."""

import asyncio
import multiprocessing
import os
import pickle
import subprocess
import sys
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path
from types import MappingProxyType

import pytest

from reward_service.client import Client, ExpectationFailed, trainers
from reward_service.client.trainers.connecting import connect
from reward_service.client.trainers.rollouts import conversation, term_numbers
from tests.client.scripted import Replica, served
from tests.trainers.worker import ONE, scored


def test_url_objective_and_key_come_from_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    replica = Replica()
    with served(replica) as url:
        monkeypatch.setenv("REWARD_SERVICE_URL", f"{url}, http://127.0.0.1:9")
        monkeypatch.setenv("REWARD_SERVICE_OBJECTIVE", "o")
        monkeypatch.setenv("REWARD_SERVICE_API_KEY", "sk-1")
        connect(deadline_s=20.0).score([conversation("p", "1.5")])
    assert replica.bodies[0]["objective"] == "o"
    assert replica.requests[-1].headers["authorization"] == "Bearer sk-1"


def test_arguments_win_over_the_environment(service_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("REWARD_SERVICE_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("REWARD_SERVICE_OBJECTIVE", "of-nobody")
    assert connect(service_url, "both").score(ONE).objective == "both"


@pytest.mark.parametrize("value", [None, "", " , "])
def test_without_a_url_the_error_names_the_argument_and_the_variable(
    value: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("REWARD_SERVICE_URL", raising=False)
    if value is not None:
        monkeypatch.setenv("REWARD_SERVICE_URL", value)
    with pytest.raises(ValueError, match=r"url: none given; valid: url='http://host:port'.*REWARD_SERVICE_URL"):
        connect()


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"on_failure": "zero"}, "on_failure: 'zero'; valid"),
        ({"objectve": "both"}, "objectve: no such option; did you mean 'objective'[?] valid: api_key, "),
        ({"objective": ["both"]}, r"objective: \['both'\]; valid: the name of one objective"),
        ({"expect": {"hash": "x"}}, r"expect\.hash: .*valid: objective_hash, models"),
        ({"expect": {"baselines": {"sft": "7"}}}, r"expect\.baselines\.sft: '7'"),
        ({"deadline_s": object()}, "is a object; valid: str, number, bool, None, list and dict"),
    ],
)
def test_an_option_that_is_not_valid_is_named(options: Mapping[str, object], message: str) -> None:
    with pytest.raises((ValueError, TypeError), match=message):
        connect("http://a:1", **options)  # type: ignore[arg-type]


def test_equal_arguments_give_one_connection_also_in_the_types_of_a_trainers_configuration() -> None:
    one = connect(["http://a:1", "http://b:1"], expect={"models": {"m": "sha256:f"}})
    assert connect("http://a:1,http://b:1", expect=MappingProxyType({"models": {"m": "sha256:f"}})) is one
    assert connect("http://a:1") is not one


def test_the_key_is_not_shown() -> None:
    assert "sk-1" not in repr(connect("http://a:1", api_key="sk-1"))


def test_event_loops_may_come_and_go(service_url: str) -> None:
    connection = connect(service_url, "both")
    answers = [asyncio.run(connection.score_async(ONE)) for _ in range(3)]
    assert len({tuple(answer.rewards) for answer in answers}) == 1


def test_a_copy_in_the_same_process_is_the_same_connection(service_url: str) -> None:
    connection = connect(service_url, "both", timeout_s=20.0)
    assert pickle.loads(pickle.dumps(connection)) is connection


def test_a_copy_made_after_the_first_answer_expects_what_it_named() -> None:
    replica = Replica()
    with served(replica) as url:
        connection = connect(url, "o")
        assert connection.expectation() is None
        connection.score([conversation("p", "1")])
        copy = pickle.loads(pickle.dumps(connection))
        copy.score([conversation("p", "1")])
    assert copy.expectation() == connection.expectation() == replica.bodies[1]["expect"]
    assert replica.bodies[1]["expect"] == {"objective_hash": "sha256:o", "models": {"m": "sha256:f"}, "baselines": {}}


def test_a_resumed_run_goes_on_with_what_it_was_or_says_so(service_url: str) -> None:
    first = connect(service_url, "both", max_concurrency=2)
    first.score(ONE)
    expected = first.expectation()
    assert expected
    assert connect(service_url, "both", expect=expected).score(ONE).rewards
    other = {**expected, "models": {**expected["models"], "helpful": "sha256:other"}}
    with pytest.raises(ExpectationFailed, match="helpful"):
        connect(service_url, "both", expect=other).score(ONE)


@pytest.mark.parametrize("method", ["fork", "spawn"])
@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_worker_processes_use_a_connection_that_was_in_use_before(
    method: str, service_url: str, client: Client
) -> None:
    connection = connect(service_url, "both", log_every_s=30.0)
    connection.score(ONE)
    with ProcessPoolExecutor(2, multiprocessing.get_context(method)) as pool:
        answers = list(pool.map(scored, [connection] * 6))
    assert {reward for _, reward in answers} == set(client.score(ONE, "both").rewards)
    assert os.getpid() not in {pid for pid, _ in answers}


def test_the_number_of_each_term_stands_beside_the_reward(service_url: str) -> None:
    answer = connect(service_url, "both", on_failure="none").score([*ONE, {"prompt": "p"}])
    numbers = term_numbers(answer)
    assert list(numbers) == ["helpful/raw", "helpful/transformed", "harmless/raw", "harmless/transformed"]
    assert numbers["helpful/raw"] == [answer.scores[0].terms[0].raw, None]
    assert numbers["harmless/transformed"] == [answer.scores[0].terms[1].transformed, None]


@pytest.mark.parametrize("module", sorted(path.stem for path in Path(trainers.__path__[0]).glob("[a-z]*.py")))
def test_a_callables_module_is_imported_without_any_heavy_package(module: str) -> None:
    script = (
        f"import sys, reward_service.client.trainers.{module}\n"
        "heavy = {'torch', 'transformers', 'trl', 'verl', 'openrlhf', 'swift', 'areal', 'nemo_rl', 'verifiers', 'ray',"
        " 'fastapi', 'starlette', 'redis', 'typer', 'prometheus_client'}\n"
        "print(sorted(heavy & set(sys.modules)))\n"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
