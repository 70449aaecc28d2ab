"""ms-swift's own plugin loading and reward computation."""

from pathlib import Path
from typing import Any

import pytest

from tests.real_trainers.conftest import OBJECTIVE, Reward
from tests.real_trainers.trainers import needs

pytestmark = needs("swift")

QUESTION = [{"role": "system", "content": "Be brief."}, {"role": "user", "content": "How tall is a giraffe? 🦒"}]
RESPONSES = [
    ("About five metres. 🦒", "stop"),
    ("<think>\nTall.\n</think>\n\nFive metres.", "stop"),
    ("About five met", "length"),
]


def computed(plugin: Path, name: str) -> Any:
    """A column of rewards, by what `--external_plugins PLUGIN --reward_funcs NAME` runs in a step of GRPO."""
    import torch
    from swift.rewards import orms
    from swift.rl_core.data import GRPOSample
    from swift.rl_core.grpo_algorithm import compute_rewards_per_func
    from swift.utils import import_external_file

    import_external_file(str(plugin))
    rows = [
        {"messages": [*QUESTION, {"role": "assistant", "content": text}], "finish_reason": end, "solution": "5 m"}
        for text, end in RESPONSES
    ]
    samples = [GRPOSample.from_row(row) for row in rows]
    return compute_rewards_per_func(samples, [orms[name](args=None)], [None], torch.device("cpu"))[:, 0].tolist()


def test_a_plugin_gives_each_sample_the_reward_of_its_conversation(
    service_url: str, reward: Reward, tmp_path: Path
) -> None:
    plugin = tmp_path / "plugin.py"
    plugin.write_text('from reward_service.client.trainers.ms_swift import register\n\nregister("service")\n')
    expected = [reward(QUESTION, text, finish_reason=end) for text, end in RESPONSES]
    for _ in range(2):  # every step of the trainer begins an event loop of its own
        assert computed(plugin, "service") == pytest.approx(expected, abs=1e-6)


def test_an_unknown_objective_stops_the_step(service_url: str, tmp_path: Path) -> None:
    from reward_service.client import RequestFailed

    plugin = tmp_path / "wrong_plugin.py"
    plugin.write_text(
        "from reward_service.client.trainers.ms_swift import register\n\n"
        f'register("wrong", url="{service_url}", objective="not-{OBJECTIVE}")\n'
    )
    with pytest.raises(RequestFailed, match="not-both"):
        computed(plugin, "wrong")
