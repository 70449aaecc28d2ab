"""Another reward-service as the server: a real one, in a process of its own."""

from pathlib import Path

import numpy as np
import pytest

from reward_service.engine.engine import Estimate
from reward_service.errors import NotReady
from tests.engine.serving import results, serving
from tests.hosted.conftest import Build
from tests.hosted.test_protocols import ITEMS, same_as_torch, started
from tests.process import ServiceProcess


def configuration(to: Path, models: dict[str, Path], objectives: dict[str, list[tuple[str, int]]]) -> Path:
    """A service of these models and objectives of (model, label) terms."""
    lines = ["[server]", "port = 0", "[store]", 'url = "memory://"']
    for name, folder in models.items():
        lines += ["[[models]]", f'name = "{name}"', f'source = "{folder}"', 'dtype = "float32"', "compile = false"]
    for name, terms in objectives.items():
        lines += ["[[objectives]]", f'name = "{name}"', 'aggregate = "weighted_sum"']
        for model, label in terms:
            lines += ["[[objectives.terms]]", f'model = "{model}"', f"label = {label}", f'name = "{model}-{label}"']
            lines += ['transform = "identity"']
    to.write_text("\n".join(lines))
    return to


async def test_it_gives_the_raw_scores_of_its_models(folder: Build, tmp_path: Path) -> None:
    models = {"one": folder("bos"), "three": folder("pad_is_eos", labels=3), "unused": folder("bos", seed=7)}
    objectives = {
        "mixed": [("one", 0), ("three", 1)],
        "plain": [("one", 0)],
        "all-three": [("three", 2), ("three", 0), ("three", 1)],
    }
    with ServiceProcess(configuration(tmp_path / "service.toml", models, objectives)) as service:
        for name in ("one", "three"):
            await same_as_torch(models[name], "reward-service", service.url, served_name=name)
        with pytest.raises(NotReady, match="it serves 3 models; name one in served_name; valid: one, three, unused"):
            await started(models["one"], protocol="reward-service", urls=[service.url])
        with pytest.raises(NotReady, match=r"it serves no model 'on'; did you mean 'one'\?"):
            await started(models["one"], protocol="reward-service", urls=[service.url], served_name="on")
        with pytest.raises(NotReady, match="none of its objectives gives the outputs of 'unused' alone"):
            await started(models["one"], protocol="reward-service", urls=[service.url], served_name="unused")
        async with serving(
            models["one"],
            engine="http",
            protocol="reward-service",
            urls=[service.url],
            served_name="one",
            max_tokens=50,
        ) as engine:
            found = await results(engine, ITEMS)
        assert any(isinstance(one, Estimate) and np.isfinite(one.outputs).all() for one in found)
