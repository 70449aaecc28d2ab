"""A model that loads beside another changes settings of torch for the whole process; scores must not follow them."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from reward_service.engine.engine import Item
from tests.engine.models import FAMILIES, build
from tests.engine.serving import outputs, serving

ITEMS = [Item(text=" ".join(f"word{n}" for n in range(length))) for length in (1, 7, 40, 90)]


@pytest.fixture
def restored() -> Iterator[None]:
    """The default number type is that of before when the test is over."""
    before = torch.get_default_dtype()
    yield
    torch.set_default_dtype(before)


@pytest.mark.usefixtures("restored")
@pytest.mark.parametrize("family", FAMILIES)
async def test_scores_do_not_follow_torch_s_default_number_type(family: str, tmp_path: Path) -> None:
    packing = "off" if family in ("no_pad", "encoder") else "shared"
    async with serving(build(family, tmp_path), packing=packing, parity="self") as engine:
        expected = await outputs(engine, *ITEMS)
        for dtype in (torch.bfloat16, torch.float64):  # Transformers sets that of the model that it loads
            torch.set_default_dtype(dtype)
            assert await outputs(engine, *ITEMS) == pytest.approx(expected, abs=1e-6)
            torch.set_default_dtype(torch.float32)
