"""A job whose inputs are the same files in another order is another job."""

from pathlib import Path
from typing import Any

import pytest

from reward_service.errors import JobStopped
from reward_service.jobs import JobPlan
from reward_service.jobs.pinning import differences
from tests.conftest import Start
from tests.jobs.files import ONE_TERM, read, row, score, write

ROWS = 20


@pytest.fixture
def inputs(tmp_path: Path) -> list[str]:
    return [
        str(write(tmp_path / f"{name}.jsonl", [row(i, id=f"{name}{i}") for i in range(ROWS)])) for name in ("a", "b")
    ]


@pytest.mark.parametrize("stop_after", [10, None])
async def test_inputs_in_another_order_are_refused(
    stop_after: int | None, inputs: list[str], start: Start, tmp_path: Path
) -> None:
    def plan(inputs: list[str]) -> JobPlan:
        return JobPlan(inputs, tmp_path / "out.jsonl", batch=5, concurrency=1)

    told = r"inputs: in another order: number 1 of them is 'a\.jsonl' before, 'b\.jsonl' now\n.*--restart"
    async with start(ONE_TERM) as running:
        await score(running.service, plan(inputs), stop_after=stop_after)
        with pytest.raises(JobStopped, match=told):
            await score(running.service, plan(inputs[::-1]))
        await score(running.service, plan(inputs))
    ids = [one["id"] for one in read(tmp_path / "out.jsonl")]
    assert ids == [f"{name}{i}" for name in ("a", "b") for i in range(ROWS)]


def named(*names: str, **more: Any) -> dict[str, Any]:
    return {"inputs": [{"name": name, **more} for name in names]}


@pytest.mark.parametrize(
    ("before", "now", "told"),
    [
        (named("a", "b"), named("a", "b"), []),
        (named("a", "b"), named("c", "a", "b"), ["inputs.c: absent before, {'name': 'c'} now"]),
        (named("a", "b"), named("b"), ["inputs.a: {'name': 'a'} before, absent now"]),
        (
            named("a", "b", "c"),
            named("a", "c", "b"),
            ["inputs: in another order: number 2 of them is 'b' before, 'c' now"],
        ),
        (
            named("a", "b", size=1),
            named("b", "a", size=2),
            [
                "inputs.a.size: 1 before, 2 now",
                "inputs.b.size: 1 before, 2 now",
                "inputs: in another order: number 1 of them is 'a' before, 'b' now",
            ],
        ),
        (named("a"), {"inputs": []}, ["inputs: [{'name': 'a'}] before, [] now"]),
        (named("a", "a"), named("a", "b"), ["inputs[1].name: 'a' before, 'b' now"]),
    ],
)
def test_documents_with_names_are_compared_by_these_and_by_their_order(
    before: dict[str, Any], now: dict[str, Any], told: list[str]
) -> None:
    assert list(differences(before, now)) == told
