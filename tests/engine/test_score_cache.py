"""Kept scores: what is kept, for how long, and that a kept score is the computed one."""

import time

import numpy as np
import pytest

from reward_service.engine.devices import Devices
from reward_service.engine.engine import Estimate, Item, ItemError, Priority
from reward_service.stores import MemoryStore
from tests.engine.conftest import Build
from tests.engine.fakes import FakeModel, opened, text, value
from tests.engine.keeping import MODEL, OTHER, Clock, again, cache, kept, scored, tokens
from tests.engine.serving import HELLO, outputs, results, serving


@pytest.mark.parametrize("labels", [1, 3])
async def test_a_second_equal_item_computes_nothing_and_has_the_very_same_outputs(folder: Build, labels: int) -> None:
    async with serving(folder("bos", labels=labels), scores=cache(), dtype="bfloat16") as engine:
        first, second = await again(engine, HELLO), await again(engine, HELLO)
    assert (first.cached, first.tokens_computed) == (False, first.tokens)
    assert (second.cached, second.tokens_computed, second.tokens) == (True, 0, first.tokens)
    assert second.outputs.tobytes() == first.outputs.tobytes()
    assert second.response_tokens == first.response_tokens


async def test_without_the_cache_it_is_computed_again_and_not_kept(folder: Build) -> None:
    async with serving(folder("bos"), scores=cache()) as engine:
        assert not (await again(engine, HELLO, use_cache=False)).cached
        assert not (await again(engine, HELLO)).cached
        assert not (await again(engine, HELLO, use_cache=False)).cached
        assert (await again(engine, HELLO)).cached


async def test_a_score_that_the_configuration_gives_is_not_kept(folder: Build) -> None:
    scores = cache()
    cut = Item(messages=HELLO.messages, finish_reason="length")
    async with serving(folder("bos"), scores=scores, on_unfinished=-4.5) as engine:
        assert (await again(engine, cut)).outputs.tolist() == [-4.5]
        assert not (await again(engine, HELLO)).cached
        fixed = await again(engine, cut)
    assert (fixed.cached, fixed.outputs.tolist()) == (False, [-4.5])


async def test_models_of_one_fingerprint_share_scores_and_others_do_not(folder: Build) -> None:
    scores = cache()
    async with serving(folder("bos"), scores=scores) as engine:
        computed = await again(engine, HELLO)
    async with serving(folder("bos"), scores=scores, max_batch_tokens=77) as engine:
        assert (await again(engine, HELLO)).outputs == computed.outputs
        assert (await again(engine, HELLO)).cached
    async with serving(folder("bos"), scores=scores, reasoning="strip") as engine:
        assert not (await again(engine, HELLO)).cached


async def test_errors_stand_beside_kept_and_computed_items_in_order(folder: Build) -> None:
    items = [Item(text="one"), Item(text="word " * 200), HELLO, Item(text="two")]
    async with serving(folder("bos"), scores=cache(), max_tokens=100) as engine:
        await again(engine, HELLO)
        first, bad, hit, last = await results(engine, items)
        assert isinstance(bad, ItemError)
        assert [isinstance(one, Estimate) and one.cached for one in (first, hit, last)] == [False, True, False]
        assert (await outputs(engine, items[0], items[2], items[3])).tolist() == [
            one.outputs.tolist() for one in (first, hit, last) if isinstance(one, Estimate)
        ]


async def test_kept_scores_hold_no_room_in_the_queue() -> None:
    devices, model = Devices(max_queued_tokens=100), FakeModel()
    device = devices.get("fake")
    intake = opened(devices, model)
    intake.scores = cache().of("m", MODEL)
    model.gate.set()
    deadline = time.monotonic() + 30
    items = [text(9, n) for n in range(20, 29)]
    first = await intake.score(items, priority=Priority.ROLLOUT, deadline=deadline, admitted=False)
    assert device.account.held == 0
    model.gate.clear()
    second = await intake.score(items, priority=Priority.ROLLOUT, deadline=deadline, admitted=False)
    assert [value(one) for one in second] == [value(one) for one in first]
    assert device.account.held == 0
    assert len(model.computed) == len(items)
    model.gate.set()
    await devices.close()


@pytest.mark.parametrize("outputs", [[np.nan], [1.0, np.inf], [-np.inf]])
async def test_what_is_not_finite_is_never_kept(outputs: list[float]) -> None:
    scores = cache()
    scores.put(MODEL, tokens(1, 2), scored(*outputs))
    assert await kept(scores, tokens(1, 2)) == [None]


async def test_an_estimate_with_more_than_outputs_is_not_kept() -> None:
    scores = cache()
    scores.put(MODEL, tokens(1, 2), Estimate(np.ones(1), 2, 2, variance=np.ones(1)))
    assert await kept(scores, tokens(1, 2)) == [None]


async def test_a_key_is_fingerprint_ids_and_pooled_token() -> None:
    scores = cache()
    scores.put(MODEL, tokens(1, 2, 3), scored(1.5))
    others = [tokens(1, 2, 3, pooled=1), tokens(1, 2), tokens(1, 2, 3, 0), tokens(1, 2, 3, response=None)]
    assert await kept(scores, *others) == [None, None, None, [1.5]]
    assert await kept(scores, tokens(1, 2, 3), fingerprint=OTHER) == [None]


async def test_a_caller_cannot_change_what_is_kept() -> None:
    scores, computed = cache(), scored(1.5)
    scores.put(MODEL, tokens(1), computed)
    computed.outputs[0] = 9.0
    (found,) = await scores.get_many(MODEL, [tokens(1)])
    assert found is not None
    with pytest.raises(ValueError, match="read-only"):
        found.outputs[0] = 9.0
    assert await kept(scores, tokens(1)) == [[1.5]]


async def test_the_least_recently_used_goes_first() -> None:
    scores = cache(entries=2)
    for n in range(2):
        scores.put(MODEL, tokens(n), scored(n))
    await kept(scores, tokens(0))
    scores.put(MODEL, tokens(2), scored(2))
    assert await kept(scores, tokens(0), tokens(1), tokens(2)) == [[0.0], None, [2.0]]


async def test_expired_is_gone_in_memory_and_in_the_store() -> None:
    clock = Clock()
    store = MemoryStore(clock=Clock())  # one whose clock stands still
    first = cache(store, clock=clock)
    first.put(MODEL, tokens(1), scored(1.5))
    await first.close()
    clock.now += 59
    second = cache(store, clock=clock)
    assert await kept(first, tokens(1)) == await kept(second, tokens(1)) == [[1.5]]
    clock.now += 1
    assert await kept(first, tokens(1)) == await kept(second, tokens(1)) == [None]
    first.put(MODEL, tokens(1), scored(1.5))
    assert await kept(first, tokens(1)) == [[1.5]]
