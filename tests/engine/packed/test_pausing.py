"""A pack that stands still while other packs are computed, by the same model and by another: its numbers stay."""

import numpy as np
import pytest
from numpy.typing import NDArray

from reward_service.engine.forward import Forward, Layout, run
from reward_service.engine.packed.choosing import packed_forward
from tests.engine.packed.packs import VOCABULARY, items, model

PROBE = np.arange(3, VOCABULARY, dtype=np.int32)


def forward(family: str) -> Forward:
    made = packed_forward(model(family), PROBE, None, share=True, compiled=False, max_tokens=200)
    assert made is not None
    assert made.layout is Layout.SHARED
    return made


def test_what_is_computed_in_pauses_changes_no_score() -> None:
    llama, qwen = forward("llama"), forward("qwen3")
    long, short = items(0), items(1, prefixes=(0, 20))
    expected = run(llama, long), run(llama, short), run(qwen, short)
    nested: list[tuple[NDArray[np.float64], NDArray[np.float64]]] = []

    found = run(llama, long, lambda: nested.append((run(llama, short), run(qwen, short))))
    np.testing.assert_array_equal(found, expected[0])
    assert nested
    for by_llama, by_qwen in nested:
        np.testing.assert_array_equal(by_llama, expected[1])
        np.testing.assert_array_equal(by_qwen, expected[2])


def test_a_pack_that_fails_in_a_pause_does_not_touch_the_paused_one() -> None:
    llama = forward("llama")
    expected = run(llama, items(0))

    def fail() -> None:
        raise RuntimeError("in the middle")

    def pause() -> None:
        with pytest.raises(RuntimeError, match="in the middle"):
            run(llama, items(1), fail)

    np.testing.assert_array_equal(run(llama, items(0), pause), expected)
