"""One live server for all dialects, over the demo's models and one that gives NaN for a tilde."""

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import httpx
import pytest

from reward_service.demo import FOLDER
from tests.dialects.conversations import Sample
from tests.engine.models import build, nan_for_tildes
from tests.process import ServiceProcess

Reference = Callable[[str, Sequence[Sample]], list[float]]
MODELS = {
    "helpful": 'dtype = "float32"',
    "harmless": 'dtype = "float32"',
    "whole": 'dtype = "float32"\non_unfinished = "error"',
    "terse": 'dtype = "float32"\nreasoning = "strip"',
    "broken": 'dtype = "float32"',
}
OBJECTIVES = {
    "both": ("and", "log_sigmoid", ("helpful", "harmless")),
    "sure": ("mean", "identity", ("helpful",)),
    "whole": ("mean", "identity", ("whole",)),
    "terse": ("mean", "identity", ("terse",)),
    "broken": ("mean", "identity", ("broken",)),
}


def toml(folder: Path) -> Path:
    """The configuration, and in `folder` the models that it names."""
    nan_for_tildes(build("bos", folder / "broken"))
    text = '[server]\nport = 0\n[store]\nurl = "memory://"\n'
    for name, options in MODELS.items():
        source = (
            folder / name if name == "broken" else FOLDER / "models" / ("harmless" if name == "harmless" else "helpful")
        )
        text += f'[[models]]\nname = "{name}"\nsource = "{source}"\ndevice = "cpu"\nparity = "self"\n'
        text += f"compile = false\n{options}\n"
    for name, (aggregate, transform, models) in OBJECTIVES.items():
        text += f'[[objectives]]\nname = "{name}"\naggregate = "{aggregate}"\n'
        text += "".join(f'[[objectives.terms]]\nmodel = "{one}"\ntransform = "{transform}"\n' for one in models)
    file = folder / "service.toml"
    file.write_text(text)
    return file


@pytest.fixture(scope="session")
def live(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Where the server listens."""
    with ServiceProcess(toml(tmp_path_factory.mktemp("dialects"))) as service:
        yield service.url


@pytest.fixture
def http(live: str) -> Iterator[httpx.Client]:
    """A client of the live server."""
    with httpx.Client(base_url=live, timeout=60) as http:
        yield http


@pytest.fixture
def reference(http: httpx.Client) -> Reference:
    """The rewards that `/v1/score` gives to samples."""

    def rewards(objective: str, samples: Sequence[Sample]) -> list[float]:
        body = {"objective": objective, "conversations": [one.conversation for one in samples]}
        return [score["reward"] for score in http.post("/v1/score", json=body).json()["scores"]]

    return rewards
