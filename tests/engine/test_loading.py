"""What is loaded and what is refused."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoModel

from reward_service.engine.engine import Estimate, Item, ItemError
from reward_service.errors import ConversationTooLong, NotReady
from tests.engine.conftest import Build
from tests.engine.models import PAD
from tests.engine.serving import HELLO, copied, outputs, results, serving


async def test_a_body_without_a_head_is_refused_with_what_is_missing(folder: Build, tmp_path: Path) -> None:
    body = copied(folder("bos"), tmp_path / "body")
    AutoModel.from_pretrained(body).save_pretrained(body)
    with pytest.raises(NotReady, match=r"no trained reward model.*score\.weight"):
        async with serving(body):
            pass


async def test_weights_that_are_not_safetensors_are_refused(folder: Build, tmp_path: Path) -> None:
    pickled = copied(folder("bos"), tmp_path / "pickled")
    torch.save(load_file(pickled / "model.safetensors"), pickled / "pytorch_model.bin")
    (pickled / "model.safetensors").unlink()
    with pytest.raises(NotReady, match=r"'m'.*no safetensors"):
        async with serving(pickled):
            pass


async def test_a_folder_whose_weights_are_not_plain_is_refused(folder: Build, tmp_path: Path) -> None:
    both = copied(folder("bos"), tmp_path / "both")
    (both / "model.safetensors.index.json").write_text(json.dumps({"weight_map": {}}))
    elsewhere = copied(folder("bos"), tmp_path / "elsewhere")
    config = json.loads((elsewhere / "config.json").read_text())
    (elsewhere / "config.json").write_text(json.dumps({**config, "transformers_weights": "other.safetensors"}))
    shutil.copy(elsewhere / "model.safetensors", elsewhere / "other.safetensors")
    adapted = copied(folder("bos"), tmp_path / "adapted")
    (adapted / "adapter_config.json").write_text("{}")
    reasons = {both: "both model.safetensors and", elsewhere: "`transformers_weights`", adapted: "adapter"}
    for path, reason in reasons.items():
        with pytest.raises(NotReady, match=f"'m'.*{reason}"):
            async with serving(path):
                pass


async def test_a_folder_that_is_no_model_names_the_model_and_the_reason(folder: Build, tmp_path: Path) -> None:
    empty = copied(folder("bos"), tmp_path / "unknown")
    (empty / "config.json").write_text(json.dumps({"model_type": "no-such-type"}))
    with pytest.raises(NotReady, match=r"'m' cannot be loaded.*no-such-type"):
        async with serving(empty):
            pass


async def test_code_in_the_folder_does_not_run_unless_the_config_trusts_it(folder: Build, tmp_path: Path) -> None:
    risky = copied(folder("bos"), tmp_path / "risky")
    config = json.loads((risky / "config.json").read_text())
    config |= {"model_type": "mine", "auto_map": {"AutoConfig": "mine.MineConfig"}}
    (risky / "config.json").write_text(json.dumps(config))
    (risky / "mine.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')")
    with pytest.raises(NotReady, match="trust_remote_code"):
        async with serving(risky):
            pass
    assert not (tmp_path / "ran").exists()


async def test_a_hub_id_is_read_at_its_revision(folder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    commit = "0123456789abcdef0123456789abcdef01234567"
    cache = tmp_path / "models--org--model"
    copied(folder("bos"), cache / "snapshots" / commit)
    (cache / "refs").mkdir()
    (cache / "refs" / "v1").write_text(commit)
    async with serving(folder("bos")) as local, serving("org/model", revision="v1") as engine:
        assert engine.card.fingerprint == local.card.fingerprint
        assert await outputs(engine, HELLO) == await outputs(local, HELLO)
    with pytest.raises(NotReady, match=r"'m' cannot be loaded from org/model"):
        async with serving("org/model", revision="v2"):
            pass


async def test_positions_that_are_learnt_bound_the_length(folder: Build) -> None:
    async with serving(folder("encoder"), max_tokens=100_000) as engine:
        assert engine.card.max_tokens == 2048
        (result,) = await results(engine, [Item(text="word " * 3000)])
    assert isinstance(result, ItemError)
    assert isinstance(result.error, ConversationTooLong)


async def test_dynamic_positions_bound_the_length(folder: Build) -> None:
    model = folder("bos")
    config = json.loads((model / "config.json").read_text())
    config["rope_parameters"] = {"rope_type": "dynamic", "rope_theta": 10000.0, "factor": 4.0}
    (model / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 300}))
    async with serving(model, max_tokens=100_000) as engine:
        assert engine.card.max_tokens == 300


async def test_an_item_beyond_the_positions_that_a_pad_id_leaves_fails_alone(folder: Build) -> None:
    async with serving(folder("roberta"), max_tokens=100_000) as engine:
        assert engine.card.max_tokens == 514 - PAD - 1
        longest = Item(text="[CLS]" * 511)
        answered = await results(engine, [longest, Item(text="[CLS]" * 512), HELLO])
    assert isinstance(answered[0], Estimate)
    assert answered[0].tokens == 511
    assert isinstance(answered[1], ItemError)
    assert isinstance(answered[1].error, ConversationTooLong)
    assert isinstance(answered[2], Estimate)
