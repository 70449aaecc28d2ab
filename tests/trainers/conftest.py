"""A live service with the demo models, and the environment that a trainer's processes get."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from reward_service.client import Client
from tests.process import ServiceProcess, demo_toml

GIRAFFE = "How tall is a giraffe?"
ANSWERS = ("About five metres.", "Very.", "I do not know, and I do not care.", "A giraffe is up to 5.5 metres tall 🦒.")
NOBODY = "http://127.0.0.1:9"
"""Where no service is."""
Reward = Callable[..., float]


@pytest.fixture(scope="session")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """`reward-service serve` with both demo models and the objective `both`, for all tests of a run."""
    with ServiceProcess(demo_toml(tmp_path_factory.mktemp("service"))) as process:
        yield process


@pytest.fixture
def service_url(live_service: ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The service's URL; the environment names it too."""
    monkeypatch.setenv("REWARD_SERVICE_URL", live_service.url)
    monkeypatch.delenv("REWARD_SERVICE_API_KEY", raising=False)
    monkeypatch.delenv("REWARD_SERVICE_OBJECTIVE", raising=False)
    return live_service.url


@pytest.fixture(scope="session")
def watching_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """As `live_service`, and the objective watches a term whose baseline is of a policy that nobody sampled."""
    file = demo_toml(tmp_path_factory.mktemp("watching"))
    baseline = '{ policy = "nobody" }'
    term = f'model = "harmless"\nname = "watched"\nweight = 0.0\ntransform = "centered"\nbaseline = {baseline}\n'
    file.write_text(f"{file.read_text()}[[objectives.terms]]\n{term}")
    with ServiceProcess(file) as process:
        yield process


@pytest.fixture
def watched(watching_service: ServiceProcess) -> str:
    """The URL of a service where the term `watched` has no number, and each conversation a reward."""
    return watching_service.url


@pytest.fixture
def client(service_url: str) -> Iterator[Client]:
    """A client of the service, to say what the numbers must be."""
    with Client(service_url) as client:
        yield client


@pytest.fixture
def reward(client: Client) -> Reward:
    """What POST /v1/score gives for a conversation: `reward(GIRAFFE, "Very.")` or `reward(messages, "Very.")`."""

    def reward(prompt: Any, response: str, **fields: Any) -> float:
        found = client.score([{"prompt": prompt, "response": response, **fields}]).rewards[0]
        assert found is not None
        return found

    return reward
