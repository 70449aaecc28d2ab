"""Each protocol against a server of its form: the torch engine's scores and counts, or a refusal at start."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from reward_service.engine.engine import Estimate, Item, ItemError
from reward_service.errors import NotReady, RenderingFailed, SpecialTokenInContent
from tests.engine.serving import copied, results, serving, small_scores
from tests.hosted.conftest import Build
from tests.hosted.serving import Host, listening, sglang_app, tei_app, vllm_app

APPS: dict[str, Callable[[Host], Any]] = {"vllm": vllm_app, "sglang": sglang_app, "tei": tei_app}
ITEMS = [
    *(
        Item(messages=[{"role": "user", "content": f"Name {n} birds."}, {"role": "assistant", "content": "wren " * n}])
        for n in range(1, 40)
    ),
    Item(text="A text without turns."),
    Item(
        messages=[{"role": "user", "content": "Cut?"}, {"role": "assistant", "content": "It is cu"}],
        finish_reason="length",
    ),
]


def serve(protocol: str, host: Host) -> AbstractContextManager[str]:
    return listening(APPS[protocol](host))


async def started(folder: Path, **options: Any) -> None:
    """Starts an engine over HTTP and closes it again."""
    async with serving(folder, engine="http", **options):
        pass


async def same_as_torch(folder: Path, protocol: str, url: str, items: list[Item] = ITEMS, **options: Any) -> None:
    async with serving(folder) as torch_engine:
        expected = await results(torch_engine, items)
        labels = torch_engine.card.labels
    async with serving(folder, engine="http", protocol=protocol, urls=[url], **options) as engine:
        found = await results(engine, items)
        assert engine.failure is None
        assert engine.card.labels == labels
        assert engine.card.fingerprint.kind == "observed"
    for one, other in zip(found, expected, strict=True):
        assert isinstance(one, Estimate)
        assert isinstance(other, Estimate)
        assert (one.tokens, one.response_tokens) == (other.tokens, other.response_tokens)
        np.testing.assert_allclose(one.outputs, other.outputs, atol=2e-4)


@pytest.mark.parametrize(
    ("protocol", "family", "labels"),
    [
        ("vllm", "bos", 1),
        ("vllm", "bos", 3),
        ("vllm", "pad_is_eos", 1),
        ("vllm", "no_system", 1),
        ("vllm", "thinking", 1),
        ("sglang", "bos", 1),
        ("sglang", "pad_is_eos", 2),
        ("tei", "encoder", 1),
        ("tei", "encoder", 3),
    ],
)
async def test_a_hosted_model_scores_what_the_torch_engine_scores(
    folder: Build, protocol: str, family: str, labels: int
) -> None:
    items = ITEMS[:-1] if protocol == "tei" else ITEMS
    with serve(protocol, Host(folder(family, labels=labels))) as url:
        await same_as_torch(folder(family, labels=labels), protocol, url, items)


async def test_tokens_that_no_text_stands_for_are_not_sent_to_a_server_that_takes_text(folder: Build) -> None:
    with serve("tei", Host(folder("encoder"))) as url:
        async with serving(folder("encoder"), engine="http", protocol="tei", urls=[url]) as engine:
            whole, cut = await results(engine, ITEMS[-2:])  # cut: without the final [SEP], which the server adds
    assert isinstance(whole, Estimate)
    assert isinstance(cut, ItemError)
    assert isinstance(cut.error, RenderingFailed)


SPELLED = Item(messages=[{"role": "user", "content": "Why?"}, {"role": "assistant", "content": "So[SEP]</s>."}])


@pytest.mark.parametrize("protocol", ["vllm", "sglang"])
async def test_special_tokens_that_a_response_spells_are_sent_as_ids_of_plain_text(
    folder: Build, protocol: str
) -> None:
    with serve(protocol, Host(folder("bos"))) as url:
        await same_as_torch(folder("bos"), protocol, url, [*ITEMS[:2], SPELLED])


async def test_special_tokens_that_a_response_spells_are_not_sent_to_a_server_that_takes_text(folder: Build) -> None:
    with serve("tei", Host(folder("encoder"))) as url:
        async with serving(folder("encoder"), engine="http", protocol="tei", urls=[url]) as engine:
            whole, spelled = await results(engine, [ITEMS[0], SPELLED])
    assert isinstance(whole, Estimate)
    assert isinstance(spelled, ItemError)
    assert isinstance(spelled.error, SpecialTokenInContent)
    assert "takes no token ids but text" in spelled.error.detail


@pytest.mark.parametrize("switch", ["use_activation", "activation", "softmax"])
@pytest.mark.parametrize("takes_ids", [True, False], ids=["classify", "pooling"])
async def test_each_version_of_vllm_is_asked_for_raw_scores_in_its_own_words(
    folder: Build, switch: str, takes_ids: bool
) -> None:
    host = Host(folder("bos"), switches=(switch,), takes_ids=takes_ids)
    with serve("vllm", host) as url:
        await same_as_torch(folder("bos"), "vllm", url)
    assert host.calls[-1][switch] is False


@pytest.mark.parametrize("labels", [1, 3])
async def test_a_server_that_leaves_the_sigmoid_on_is_refused(folder: Build, labels: int) -> None:
    with (
        serve("vllm", Host(folder("bos", labels=labels), switches=())) as url,
        pytest.raises(NotReady, match=r"gives no raw scores .*softmax=False.*lie in \[0, 1\]"),
    ):
        await started(folder("bos", labels=labels), protocol="vllm", urls=[url])


async def test_raw_scores_that_look_like_probabilities_are_told_by_the_switch(folder: Build, tmp_path: Path) -> None:
    small = small_scores(folder("bos"), tmp_path / "small")
    with serve("vllm", Host(small, offset=0.5)) as url:
        await started(small, protocol="vllm", urls=[url], parity="self")
    with (
        serve("sglang", Host(small, offset=0.5)) as url,
        pytest.raises(NotReady, match=r"all \d+ golden scores lie in \[0, 1\]"),
    ):
        await started(small, protocol="sglang", urls=[url], parity="self")


@pytest.mark.parametrize("protocol", ["vllm", "sglang", "tei"])
async def test_a_server_that_counts_other_tokens_is_refused(folder: Build, protocol: str) -> None:
    family = "encoder" if protocol == "tei" else "bos"
    with (
        serve(protocol, Host(folder(family), adds_bos=True)) as url,
        pytest.raises(NotReady, match=r"it counted \d+ tokens where \d+ were sent"),
    ):
        await started(folder(family), protocol=protocol, urls=[url])


async def test_scores_that_are_normalised_over_the_batch_are_refused(folder: Build) -> None:
    with (
        serve("sglang", Host(folder("bos"), normalises=True)) as url,
        pytest.raises(NotReady, match=r"all \d+ golden conversations score \[1\.0\]"),
    ):
        await started(folder("bos"), protocol="sglang", urls=[url])


async def test_a_server_with_other_weights_than_the_source_is_refused(folder: Build) -> None:
    with (
        serve("vllm", Host(folder("bos", seed=7))) as url,
        pytest.raises(NotReady, match="fails the parity check: the scores are not the model's"),
    ):
        await started(folder("bos"), protocol="vllm", urls=[url])


async def test_the_weights_need_not_be_here(folder: Build, tmp_path: Path) -> None:
    bare = copied(folder("bos"), tmp_path / "bare")
    (bare / "model.safetensors").unlink()
    with serve("vllm", Host(folder("bos"))) as url:
        async with serving(bare, engine="http", protocol="vllm", urls=[url]) as engine:
            assert engine.card.parity is not None
            assert engine.card.parity.mode == "self"
            assert isinstance((await results(engine, ITEMS[:1]))[0], Estimate)


async def test_a_server_whose_scores_are_nan_is_refused(folder: Build, tmp_path: Path) -> None:
    broken = copied(folder("bos"), tmp_path / "nan")
    weights = load_file(broken / "model.safetensors")
    weights["score.weight"][:] = torch.nan
    save_file(weights, broken / "model.safetensors", metadata={"format": "pt"})
    host = Host(broken)
    with serve("vllm", host) as url, pytest.raises(NotReady, match=r"500|NaN"):
        async with serving(broken, engine="http", protocol="vllm", urls=[url]):
            pass


@pytest.mark.parametrize(
    ("protocol", "told"),
    [
        ("vllm", "it serves no model 'other'; valid: org/reward"),
        ("sglang", "it serves 'org/reward' and not 'other'"),
        ("tei", "it serves 'org/reward' and not 'other'"),
    ],
)
async def test_a_served_name_that_is_not_served_is_named(folder: Build, protocol: str, told: str) -> None:
    with serve(protocol, Host(folder("bos"))) as url, pytest.raises(NotReady, match=told):
        async with serving(folder("bos"), engine="http", protocol=protocol, urls=[url], served_name="other"):
            pass
