"""Tiny real models through the engine: loading, refusals, fingerprints, dtypes and failures."""

import json
import shutil
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoModel, AutoModelForSequenceClassification, AutoTokenizer, LlamaForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from reward_service.config import ClassifierConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Engine, Estimate, Item, ItemError, Priority
from reward_service.engine.fingerprint import fingerprint
from reward_service.errors import ConversationTooLong, NotFinite, NotReady
from tests.engine.conftest import Build
from tests.engine.models import EOS

HELLO = Item(messages=[{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Hi there."}])


@asynccontextmanager
async def serving(folder: Path | str, **options: Any) -> AsyncIterator[Engine]:
    devices = Devices(max_queued_tokens=100_000)
    config = ClassifierConfig(name="m", source=str(folder), **{"dtype": "float32", "device": "cpu", **options})
    engine = create(config, devices)
    try:
        await engine.start()
        yield engine
    finally:
        await engine.close()
        await devices.close()


async def results(engine: Engine, items: Sequence[Item]) -> list[Estimate | ItemError]:
    return await engine.score(items, priority=Priority.ROLLOUT, deadline=time.monotonic() + 60)


async def outputs(engine: Engine, *items: Item) -> np.ndarray[Any, np.dtype[np.float64]]:
    estimates = await results(engine, items)
    return np.array([estimate.outputs for estimate in estimates if isinstance(estimate, Estimate)])


def copied(folder: Path, to: Path) -> Path:
    return Path(shutil.copytree(folder, to))


async def test_the_card_says_what_is_served(folder: Build) -> None:
    async with serving(folder("bos", labels=3), max_tokens=77) as engine:
        card = engine.card
        assert (card.engine, card.dtype, card.device, card.max_tokens) == ("torch", "float32", "cpu", 77)
        assert card.labels == ("LABEL_0", "LABEL_1", "LABEL_2")
        assert card.parameters
        assert card.fingerprint.kind == "weights"
        assert (await outputs(engine, HELLO)).shape == (1, 3)


async def test_before_start_and_after_close_it_is_not_ready(folder: Build) -> None:
    engine = create(ClassifierConfig(name="m", source=str(folder("bos"))), Devices(max_queued_tokens=10))
    with pytest.raises(NotReady, match="'m' is not loaded"):
        await results(engine, [HELLO])
    with pytest.raises(NotReady):
        _ = engine.card
    assert engine.failure == "model 'm' is not loaded"
    async with serving(folder("bos")) as started:
        await started.close()
        with pytest.raises(NotReady):
            await results(started, [HELLO])


async def test_one_bad_item_stands_beside_its_neighbours(folder: Build) -> None:
    long = Item(text="word " * 200)
    async with serving(folder("bos"), max_tokens=100) as engine:
        first, bad, last = await results(engine, [HELLO, long, HELLO])
    assert isinstance(first, Estimate)
    assert isinstance(last, Estimate)
    assert first.outputs == last.outputs
    assert isinstance(bad, ItemError)
    assert isinstance(bad.error, ConversationTooLong)


async def test_a_number_for_unfinished_responses_needs_no_device(folder: Build) -> None:
    cut = Item(messages=HELLO.messages, finish_reason="length")
    async with serving(folder("bos", labels=3), on_unfinished=-4.5) as engine:
        fixed, scored = await results(engine, [cut, HELLO])
    assert isinstance(fixed, Estimate)
    assert fixed.outputs.tolist() == [-4.5] * 3
    assert (fixed.tokens, fixed.tokens_computed) == (0, 0)
    assert isinstance(scored, Estimate)
    assert scored.tokens_computed == scored.tokens > 0


async def test_nan_weights_give_errors_and_never_a_number(folder: Build, tmp_path: Path) -> None:
    broken = copied(folder("bos"), tmp_path / "nan")
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    async with serving(broken) as engine:
        assert engine.failure is None
        answered = await results(engine, [HELLO, Item(text="Hello"), Item(text="Bye")])
    assert [type(one.error) for one in answered if isinstance(one, ItemError)] == [NotFinite] * 3


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


async def test_a_bfloat16_model_has_a_float32_head(folder: Build) -> None:
    items = [Item(text=f"number {n}") for n in range(64)]
    async with serving(folder("bos"), dtype="bfloat16") as engine:
        scores = (await outputs(engine, *items))[:, 0]
        assert engine.card.dtype == "bfloat16"
    rounded = torch.tensor(scores).bfloat16().double().numpy()
    assert (scores != rounded).mean() > 0.9


async def test_an_encoder_in_bfloat16_has_one_too(folder: Build) -> None:
    async with serving(folder("encoder"), dtype="bfloat16") as engine:
        scores = (await outputs(engine, *[Item(text=f"number {n}") for n in range(8)]))[:, 0]
    assert (scores != torch.tensor(scores).bfloat16().double().numpy()).any()


@pytest.mark.parametrize("family", ["pad_is_eos", "no_pad", "encoder", "no_system"])
async def test_scores_do_not_depend_on_the_rest_of_the_batch(folder: Build, family: str) -> None:
    items = [Item(text="word " * (1 + 7 * n % 90) + str(n)) for n in range(40)]
    async with serving(folder(family)) as engine:
        together = await outputs(engine, *items)
        alone = np.concatenate([await outputs(engine, item) for item in items])
    assert np.abs(together - alone).max() < 1e-5


async def test_the_pooled_token_skips_a_final_eos_that_is_the_pad(folder: Build) -> None:
    path = folder("pad_is_eos")
    model = AutoModelForSequenceClassification.from_pretrained(path).eval()
    ids = AutoTokenizer.from_pretrained(path)("abc</s></s>", return_tensors="pt")["input_ids"]
    assert ids[0, -2:].tolist() == [EOS, EOS]
    with torch.inference_mode():
        expected, skipped = model(input_ids=ids).logits.item(), model(input_ids=ids[:, :-2]).logits.item()
    async with serving(path) as engine:
        found = await outputs(engine, Item(text="abc</s></s>"), Item(text="a longer neighbour</s>"))
    assert found[0, 0] == pytest.approx(expected, abs=1e-5) == pytest.approx(skipped, abs=1e-5)


async def test_a_model_with_a_pooling_of_its_own_keeps_it(folder: Build, monkeypatch: pytest.MonkeyPatch) -> None:
    forward = LlamaForSequenceClassification.forward

    def first_token(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(hidden[:, 0]))

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", first_token)
    items = [Item(text="one"), Item(text="one two three four")]
    async with serving(folder("bos")) as engine:
        own = await outputs(engine, *items)
    monkeypatch.setattr(LlamaForSequenceClassification, "forward", forward)
    async with serving(folder("bos")) as engine:
        usual = await outputs(engine, *items)
    assert own[0] == pytest.approx(own[1], abs=1e-5)  # both begin with the BOS, and a causal model sees no further
    assert np.abs(own - usual).min() > 1e-3


async def test_a_model_whose_scores_depend_on_padding_runs_one_item_at_a_time(
    folder: Build, monkeypatch: pytest.MonkeyPatch
) -> None:
    def mean(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(hidden.mean(1)))

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", mean)
    items = [Item(text="one"), Item(text="one two three four")]
    async with serving(folder("bos")) as engine:
        together = await outputs(engine, *items)
        alone = np.concatenate([await outputs(engine, item) for item in items])
    assert together == pytest.approx(alone, abs=1e-6)


async def test_positions_that_are_learnt_bound_the_length(folder: Build) -> None:
    async with serving(folder("encoder"), max_tokens=100_000) as engine:
        assert engine.card.max_tokens == 2048
        (result,) = await results(engine, [Item(text="word " * 3000)])
    assert isinstance(result, ItemError)
    assert isinstance(result.error, ConversationTooLong)


def test_a_fingerprint_names_what_decides_the_numbers(folder: Build, tmp_path: Path) -> None:
    path = folder("bos")

    def value(where: Path = path, max_tokens: int = 100, **options: Any) -> str:
        config = ClassifierConfig(name=options.pop("name", "m"), source=str(where), **options)
        return fingerprint(where, config, max_tokens).value

    base = value()
    assert base.startswith("sha256:")
    moved = copied(path, tmp_path / "moved")
    assert value(moved) == value(name="other") == value(temperature=3.0) == value(device="cpu") == base

    changed = {base, value(max_tokens=99), value(dtype="float32"), value(reasoning="strip")}
    changed |= {value(on_too_long="truncate_left"), value(on_unfinished=-1.0)}
    template = moved / "chat_template.jinja"
    template.write_text(template.read_text() + " ")
    changed.add(value(moved))
    weights = load_file(moved / "model.safetensors")
    weights["score.weight"][0, 0] += 1e-3
    save_file(weights, moved / "model.safetensors", metadata={"format": "pt"})
    changed.add(value(moved))
    assert len(changed) == 8
