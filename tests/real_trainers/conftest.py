"""A service in the project's own environment; the trainer's has the client alone, as a user's has."""

import hashlib
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from reward_service.client import Client
from tests.process import ServiceProcess, demo_toml
from tests.real_trainers.recording import Recorder

SERVICE_PYTHON = Path(__file__).parents[2] / ".venv" / "bin" / "python"
OBJECTIVE = "both"
KEY = "rs_of-a-trainer"
Reward = Callable[..., float]


@pytest.fixture(scope="session")
def service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """`reward-service serve` with both demo models and the objective `both`, for those who have the key."""
    file = demo_toml(tmp_path_factory.mktemp("service"))
    digest = hashlib.sha256(KEY.encode()).hexdigest()
    with file.open("a") as lines:
        lines.write(f'[[api_keys]]\nname = "trainer"\nsha256 = "{digest}"\nscopes = ["score"]\n')
    with ServiceProcess(file, SERVICE_PYTHON) as process:
        yield process


def with_key(url: str) -> str:
    """The URL for a trainer that takes nothing else."""
    return url.replace("http://", f"http://any:{KEY}@")


@pytest.fixture
def recorder(service: ServiceProcess) -> Iterator[Recorder]:
    """Stands between a trainer and the service."""
    with Recorder(service.url) as recorder:
        yield recorder


@pytest.fixture
def service_url(service: ServiceProcess, monkeypatch: pytest.MonkeyPatch) -> str:
    """The service's URL; the environment of the trainer names it, the objective and the key."""
    monkeypatch.setenv("REWARD_SERVICE_URL", service.url)
    monkeypatch.setenv("REWARD_SERVICE_OBJECTIVE", OBJECTIVE)
    monkeypatch.setenv("REWARD_SERVICE_API_KEY", KEY)
    return service.url


@pytest.fixture
def reward(service: ServiceProcess) -> Iterator[Reward]:
    """What POST /v1/score says: `reward(prompt, response, finish_reason="length")`."""
    with Client(service.url, api_key=KEY) as client:

        def score(prompt: object, response: str, **fields: object) -> float:
            answer = client.score([{"prompt": prompt, "response": response, **fields}], OBJECTIVE)
            (found,) = answer.rewards
            assert found is not None
            return found

        yield score
