"""Tiny real models through the engine: scores, dtypes, batches and failures."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import AutoModelForSequenceClassification, AutoTokenizer, LlamaForSequenceClassification
from transformers.modeling_outputs import SequenceClassifierOutput

from reward_service.config import ClassifierConfig
from reward_service.engine import create
from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, ItemError
from reward_service.errors import ConversationTooLong, NotFinite, NotReady
from tests.engine.conftest import Build
from tests.engine.models import EOS, nan_for_tildes
from tests.engine.serving import DEMO, HELLO, copied, outputs, results, serving, small_scores


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
    broken = nan_for_tildes(copied(folder("bos"), tmp_path / "nan"))
    async with serving(broken) as engine:
        assert engine.failure is None
        answered = await results(engine, [Item(text="~"), Item(text="Hello ~"), Item(text="~Bye")])
        assert isinstance((await results(engine, [HELLO]))[0], Estimate)
    assert [type(one.error) for one in answered if isinstance(one, ItemError)] == [NotFinite] * 3


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


@pytest.mark.parametrize("family", ["pad_is_eos", "no_pad", "encoder", "roberta", "no_system"])
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


@pytest.mark.parametrize("family", ["bos", "pad_is_eos", "thinking", "no_pad", "encoder", "roberta", "demo"])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
async def test_rounding_to_half_precision_is_no_dependence_on_padding(
    folder: Build, family: str, dtype: str, caplog: pytest.LogCaptureFixture
) -> None:
    async with serving(DEMO if family == "demo" else folder(family), dtype=dtype):
        assert "depend on padding" not in caplog.text


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
async def test_a_model_whose_scores_depend_on_padding_runs_one_item_at_a_time(
    folder: Build, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, dtype: str
) -> None:
    def mean(self: Any, input_ids: torch.Tensor, attention_mask: torch.Tensor) -> SequenceClassifierOutput:
        hidden = self.model(input_ids=input_ids, attention_mask=attention_mask).last_hidden_state
        return SequenceClassifierOutput(logits=self.score(hidden.mean(1)))

    monkeypatch.setattr(LlamaForSequenceClassification, "forward", mean)
    items = [Item(text="one"), Item(text="one two three four")]
    async with serving(small_scores(folder("bos"), tmp_path / "small"), dtype=dtype) as engine:
        together = await outputs(engine, *items)
        alone = np.concatenate([await outputs(engine, item) for item in items])
    assert together == pytest.approx(alone, rel=1e-5)
