"""The parity check: right servings pass, and each wrong one is refused by its name, with the numbers."""

import gc
import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Item
from reward_service.engine.parity import check as check_module
from reward_service.engine.parity.check import check_parity, chosen_mode
from reward_service.engine.parity.golden import FILE, golden_set
from reward_service.engine.parity.reference import reference_ids, stored_parameters
from reward_service.engine.parity.refusal import ParityRefused
from reward_service.engine.rendering import Rendered
from reward_service.errors import NotReady
from tests.engine import wrong_servers as wrong
from tests.engine.conftest import Build
from tests.engine.models import FAMILIES, build
from tests.engine.serving import DEMO, serving

Server = wrong.Server
MODES = ("reference", "self")


def config(folder: Path, **options: Any) -> ClassifierConfig:
    return ClassifierConfig(name="m", source=str(folder), **{"dtype": "float32", "device": "cpu", **options})


async def refused(server: Server, folder: Path, **options: Any) -> str:
    with pytest.raises(ParityRefused) as raised:
        await check_parity(server, config(folder, **options), folder)
    assert raised.value.detail.startswith("model 'm' fails the parity check: ")
    return raised.value.detail


def test_the_golden_set_is_ascii_with_names_of_its_own_shared_prompts_and_near_duplicates() -> None:
    rows = json.loads(FILE.read_text("ascii"))
    assert len({row["name"] for row in rows}) == len(rows) >= 24
    assert all(row["messages"][-1]["role"] == "assistant" for row in rows)
    prompts = [json.dumps(row["messages"][:-1]) for row in rows]
    assert len(prompts) - len(set(prompts)) >= 12
    answers = {row["name"]: row["messages"][-1]["content"] for row in rows}
    assert answers["giraffe-good"] == answers["giraffe-no-period"] + "."
    lengths = [sum(len(message["content"]) for message in row["messages"]) for row in rows]
    assert min(lengths) == 2
    assert max(lengths) > 1500
    assert {len(row["messages"]) for row in rows} >= {2, 3, 4, 9}


CASES = [(family, "float32") for family in [*FAMILIES, "demo", "harmless"]]


@pytest.mark.parametrize(
    ("family", "dtype"), [*CASES, ("bos", "bfloat16"), ("no_system", "bfloat16"), ("demo", "bfloat16")]
)
async def test_the_torch_engine_passes(folder: Build, family: str, dtype: str) -> None:
    path = {"demo": DEMO, "harmless": DEMO.parent / "harmless"}.get(family) or folder(family)
    async with serving(path, dtype=dtype) as engine:
        for mode in MODES:
            parity = await check_parity(engine, config(path, dtype=dtype, parity=mode), path, raw=True)
            assert parity.mode == mode
            assert parity.conversations >= 20
            assert parity.difference is not None
            assert parity.tolerance is not None
            assert parity.difference <= parity.tolerance


@pytest.mark.parametrize("labels", [1, 3])
@pytest.mark.parametrize("mode", MODES)
async def test_a_right_server_passes(folder: Build, labels: int, mode: str) -> None:
    path = folder("bos", labels)
    assert (await check_parity(Server(path), config(path, parity=mode), path)).conversations == len(golden_set())


async def test_a_model_without_a_template_is_checked_with_texts(tmp_path: Path) -> None:
    path = build("bos", tmp_path / "plain", template=False)
    async with serving(path) as engine:
        assert (await check_parity(engine, config(path), path)).conversations == len(golden_set())


async def test_a_template_without_system_role_gets_conversations_without_one(folder: Build) -> None:
    path = folder("bos")
    assert (await check_parity(wrong.Remote(path), config(path), path)).conversations == len(golden_set())


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("mode", MODES)
async def test_a_sigmoid_left_on_is_named(folder: Build, mode: str, dtype: str) -> None:
    path = folder("bos")
    server = Server(path, dtype=getattr(torch, dtype), twist=torch.sigmoid)
    assert "a sigmoid is left on" in await refused(server, path, parity=mode, dtype=dtype)


@pytest.mark.parametrize("mode", MODES)
async def test_a_softmax_left_on_is_named(folder: Build, mode: str) -> None:
    path = folder("bos", 3)
    server = Server(path, twist=lambda logits: logits.softmax(-1))
    assert "a softmax is left on" in await refused(server, path, parity=mode)


async def test_scores_in_0_to_1_are_the_models_own_where_no_activation_can_be(folder: Build) -> None:
    path = folder("bos")
    server = Server(path, twist=torch.sigmoid)
    assert (await check_parity(server, config(path, parity="self"), path, raw=True)).mode == "self"


@pytest.mark.parametrize("mode", MODES)
async def test_a_doubled_bos_is_named(folder: Build, mode: str) -> None:
    path = folder("bos")
    detail = await refused(wrong.DoubledBos(path), path, parity=mode)
    assert "one token more: a doubled BOS" in detail
    assert "'giraffe-good' has " in detail


async def test_with_the_engines_own_ids_a_doubled_bos_is_certain(folder: Build) -> None:
    path = folder("bos")
    server = wrong.DoubledBos(path)

    def render(item: Item) -> Rendered:
        ids = np.array(server.ids(item), dtype=np.int32)
        return Rendered(ids, len(ids) - 1, None)

    with pytest.raises(ParityRefused, match="the BOS is doubled"):
        await check_parity(server, config(path), path, render=render)


async def test_other_ids_of_equal_number_are_refused(folder: Build) -> None:
    path = folder("bos")
    server = Server(path)

    def render(item: Item) -> Rendered:
        ids = np.array(server.ids(item)[::-1], dtype=np.int32)
        return Rendered(ids, len(ids) - 1, None)

    with pytest.raises(ParityRefused, match="are not those of the tokenizer alone, though as many"):
        await check_parity(server, config(path), path, render=render)


@pytest.mark.parametrize("mode", MODES)
async def test_a_dropped_template_is_named(folder: Build, mode: str) -> None:
    path = folder("bos")
    assert "fewer tokens: the chat template is dropped" in await refused(wrong.DroppedTemplate(path), path, parity=mode)


@pytest.mark.parametrize("mode", MODES)
async def test_another_template_is_told_by_its_counts(folder: Build, mode: str) -> None:
    path = folder("bos")
    assert "another tokenizer or chat template" in await refused(wrong.OtherTemplate(path), path, parity=mode)


async def test_a_pooled_trailing_pad_is_named(folder: Build) -> None:
    path = folder("bos")
    assert "a trailing pad token is pooled" in await refused(wrong.TrailingPad(path), path)


async def test_a_pooled_eos_that_transformers_passes_over_is_named(folder: Build) -> None:
    path = folder("pad_is_eos")
    assert "the literal last token is pooled" in await refused(wrong.LiteralLast(path), path)


@pytest.mark.parametrize("mode", MODES)
async def test_a_head_in_bfloat16_is_named(folder: Build, mode: str) -> None:
    path = folder("bos")
    server = Server(path, dtype=torch.bfloat16, twist=lambda logits: logits.bfloat16().float())
    detail = await refused(server, path, parity=mode, dtype="bfloat16")
    assert "rounded to half precision: the head does not run in float32" in detail


@pytest.mark.parametrize("mode", MODES)
async def test_a_score_that_depends_on_the_batch_is_named(folder: Build, mode: str) -> None:
    path = folder("bos")
    for server in (wrong.Padded(path), wrong.Swapped(path)):
        assert "the scores depend on the batch" in await refused(server, path, parity=mode)


@pytest.mark.parametrize("mode", MODES)
async def test_scores_that_tie_are_refused(folder: Build, mode: str) -> None:
    path = folder("bos")
    detail = await refused(Server(path, twist=lambda logits: logits * 0 + 1.7), path, parity=mode)
    assert "all scores are equal" in detail if mode == "self" else "the scores are not the model's" in detail
    some = await refused(Server(path, twist=lambda logits: logits.clamp(max=0.77)), path, parity="self")
    assert "pairs of conversations tie" in some


async def test_other_weights_are_refused_with_the_numbers(folder: Build, tmp_path: Path) -> None:
    other = build("bos", tmp_path / "other", seed=7)
    detail = await refused(Server(other), folder("bos"))
    for part in ("the scores are not the model's", "scores ", "by Transformers ", "apart allowed", "in another order"):
        assert part in detail


async def test_another_number_of_outputs_is_refused(folder: Build) -> None:
    detail = await refused(Server(folder("bos")), folder("bos", 3))
    assert "it gives 1 outputs, and the model has 3" in detail
    ragged = await refused(wrong.Ragged(folder("bos")), folder("bos"))
    assert "has 2 outputs, and others have 1" in ragged


@pytest.mark.parametrize("mode", MODES)
async def test_a_conversation_without_a_score_is_refused_by_its_name(folder: Build, mode: str) -> None:
    path = folder("bos")
    detail = await refused(wrong.Failing(path), path, parity=mode)
    assert "has no score: the device failed" in detail


async def test_a_model_that_gives_nan_is_refused(folder: Build, tmp_path: Path) -> None:
    path = Path(shutil.copytree(folder("bos"), tmp_path / "nan"))
    weights = load_file(path / "model.safetensors")
    weights["score.weight"][:] = torch.nan
    save_file(weights, path / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ParityRefused, match="'giraffe-good' has no score: the model gave"):
        async with serving(path, parity="self") as engine:
            await check_parity(engine, config(path), path)


async def test_the_reference_is_let_go(folder: Build) -> None:
    def models() -> int:
        gc.collect()
        return sum(type(one).__name__ == "LlamaForSequenceClassification" for one in gc.get_objects())

    path = folder("bos")
    server = Server(path)
    held = models()
    await check_parity(server, config(path, parity="reference"), path)
    assert models() <= held  # what an earlier test left may be let go too


async def test_a_model_that_reads_too_few_tokens_is_not_compared(
    folder: Build, caplog: pytest.LogCaptureFixture
) -> None:
    path = folder("bos")
    async with serving(path, max_tokens=3) as engine:
        parity = await check_parity(engine, config(path), path)
    assert (parity.conversations, parity.difference, parity.tolerance) == (0, None, None)
    assert "too few tokens" in caplog.text


async def test_what_is_too_long_for_the_model_is_left_out(folder: Build) -> None:
    path = folder("bos")
    async with serving(path, max_tokens=100) as engine:
        assert 8 <= (await check_parity(engine, config(path), path)).conversations < len(golden_set())


@pytest.mark.parametrize("mode", MODES)
async def test_what_loses_its_oldest_tokens_is_left_out(folder: Build, mode: str) -> None:
    path = folder("bos")
    options: dict[str, Any] = {"max_tokens": 100, "on_too_long": "truncate_left", "parity": mode}
    async with serving(path, **options) as engine:
        assert 8 <= (await check_parity(engine, config(path, **options), path)).conversations < len(golden_set())


def test_the_mode_follows_the_weights(folder: Build, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path, bare = folder("bos"), Path(shutil.copytree(folder("bos"), tmp_path / "bare"))
    (bare / "model.safetensors").unlink()
    assert chosen_mode(config(path), path) == "reference"
    assert chosen_mode(config(path, parity="self"), path) == "self"
    assert [chosen_mode(config(bare), one) for one in (bare, None)] == ["self", "self"]
    with pytest.raises(NotReady, match="parity 'reference' needs the weights"):
        chosen_mode(config(bare, parity="reference"), bare)
    monkeypatch.setattr(check_module, "MOST_PARAMETERS", stored_parameters(path) - 1)
    assert chosen_mode(config(path), path) == "self"
    assert chosen_mode(config(path, parity="reference"), path) == "reference"


async def test_a_model_that_transformers_cannot_load_is_compared_with_itself_unless_a_reference_is_asked_for(
    folder: Build, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = Path(shutil.copytree(folder("bos"), tmp_path / "foreign"))
    document = json.loads((path / "config.json").read_text())
    (path / "config.json").write_text(json.dumps({**document, "model_type": "no-such-type"}))
    server = Server(folder("bos"))
    assert (await check_parity(server, config(path), path)).mode == "self"
    assert "is compared with itself only" in caplog.text
    with pytest.raises(NotReady, match="'m': the parity check has no reference: "):
        await check_parity(server, config(path, parity="reference"), path)


async def test_without_the_tokenizers_folder_scores_alone_are_checked(folder: Build) -> None:
    path = folder("bos")
    server = Server(path)
    assert (await check_parity(server, config(path), None)).mode == "self"
    assert (await check_parity(wrong.DoubledBos(path), config(path), None)).mode == "self"


def test_the_references_tokens_are_those_of_the_renderer(folder: Build) -> None:
    items = [golden_set()[0].forms[0], Item(text="plain text")]
    ids = reference_ids(folder("bos"), items)
    assert ids[0][:1] != ids[0][1:2]
    assert all(ids)
