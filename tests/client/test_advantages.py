"""A call that is split has the advantages of the whole: they are computed where all of its answers are."""

from typing import Any

import pytest

from reward_service.client import AsyncClient
from tests.api.test_advantages import CONFIG, RESPONSES, conversations
from tests.client.scripted import Kind, Replica, ask_all, both, conversation, item_error, problem, scoring
from tests.conftest import Start

GRPO = {"estimator": "grpo", "scale": "none"}


def group(name: str, *numbers: float) -> list[dict[str, Any]]:
    return [conversation(r, id=f"{name}{i}", group=name, group_size=len(numbers)) for i, r in enumerate(numbers)]


def asked(kind: Kind, replica: Replica, items: list[Any], advantages: Any = GRPO, **options: Any) -> Any:
    return ask_all(kind, replica, [scoring(items, advantages=advantages)], **options)[0]


@pytest.mark.parametrize(
    "advantages",
    [
        {"estimator": "grpo"},
        {"estimator": "grpo", "scale": "batch", "rules": "verl"},
        {"estimator": "rloo"},
        {"estimator": "gdpo"},
    ],
    ids=lambda one: "-".join(one.values()),
)
async def test_a_call_in_parts_has_the_advantages_of_one_request(start: Start, advantages: dict[str, str]) -> None:
    items = conversations(RESPONSES)
    async with start(CONFIG) as running:
        body = {"objective": "both", "conversations": items, "advantages": advantages}
        whole = (await running.http.post("/v1/score", json=body)).json()
        before = len(running.engines["a"].calls)
        async with AsyncClient(
            "http://test", transport=running.http._transport, on_failure="none", max_conversations_per_request=4
        ) as client:
            answer = await client.score(items, "both", advantages=advantages)
        assert len(running.engines["a"].calls) - before > 2
    assert answer.advantages == [score["advantage"] for score in whole["scores"]]
    assert answer.advantage_rules is not None
    assert answer.advantage_rules.model_dump(exclude_unset=True) == whole["advantage_rules"]


@both
def test_the_service_is_sent_whole_groups_and_no_request_for_advantages(kind: Kind) -> None:
    replica = Replica()
    items = [one for pair in zip(group("a", 1.0, 3.0), group("b", 0.0, 5.0), strict=True) for one in pair]
    answer = asked(kind, replica, items, max_conversations_per_request=2)
    assert answer.advantages == [-1.0, -2.5, 1.0, 2.5]
    assert answer.rewards == [1.0, 0.0, 3.0, 5.0]
    assert sorted([one["id"] for one in body["conversations"]] for body in replica.bodies) == [
        ["a0", "a1"],
        ["b0", "b1"],
    ]
    assert all(one["group_size"] == 2 for body in replica.bodies for one in body["conversations"])
    assert not any("advantages" in body for body in replica.bodies)


@both
def test_a_conversation_that_is_tried_again_goes_without_its_group_and_counts_in_it(kind: Kind) -> None:
    replica = Replica(items={"a1": [item_error(503, "engine_failed")]})
    answer = asked(kind, replica, group("a", 1.0, 3.0, 8.0))
    assert answer.advantages == [-3.0, -1.0, 4.0]
    assert [[one.get("group_size") for one in body["conversations"]] for body in replica.bodies] == [[3, 3, 3], [None]]


@both
@pytest.mark.parametrize(("on_failure", "reward"), [("none", None), (-7.0, -7.0)])
def test_a_conversation_without_a_reward_takes_no_part_whatever_stands_in_for_it(
    kind: Kind, on_failure: Any, reward: float | None
) -> None:
    replica = Replica(items={"a1": [item_error(422, "baseline_missing")]})
    answer = asked(kind, replica, group("a", 1.0, 100.0, 3.0), on_failure=on_failure)
    assert answer.rewards == [1.0, reward, 3.0]
    assert answer.advantages == [-1.0, None, 1.0]


@both
@pytest.mark.parametrize("estimator", ["grpo", "rloo", "gdpo"])
def test_a_service_that_is_gone_leaves_no_advantages(kind: Kind, estimator: str) -> None:
    replica = Replica(script=[problem(503, "not_ready") for _ in range(50)])
    answer = asked(kind, replica, group("a", 1.0, 2.0), {"estimator": estimator}, on_failure="none", deadline_s=0.2)
    assert answer.advantages == [None, None]


@both
def test_without_advantages_an_answer_has_none_and_groups_are_left_to_the_service(kind: Kind) -> None:
    replica = Replica()
    answer = asked(kind, replica, group("a", 1.0, 2.0)[:1], None)
    assert (answer.advantages, answer.advantage_rules) == ([None], None)


@both
@pytest.mark.parametrize(
    ("items", "advantages", "told"),
    [
        (group("a", 1.0, 2.0)[:1], GRPO, "advantages: group 'a': 1 conversations in the request, and group_size is 2"),
        ([conversation(1.0)], GRPO, r"advantages: conversations\[0\]: group None, group_size None; valid: a text and"),
        ([conversation(1.0, group="a", group_size=True)], GRPO, r"group 'a', group_size True; valid"),
        (group("a", 1.0), {"estimator": "ppo"}, "advantages.estimator: 'ppo' is not valid; valid: 'grpo', 'rloo' or"),
        (group("a", 1.0), {"estimator": "rloo", "eps": 1.0}, "advantages: rloo has no rule eps; valid: singleton"),
        (group("a", 1.0), "grpo", "advantages: 'grpo' is not valid: expected an object"),
    ],
)
def test_advantages_that_cannot_be_are_refused_before_any_request(
    kind: Kind, items: list[Any], advantages: Any, told: str
) -> None:
    replica = Replica()
    with pytest.raises(ValueError, match=told):
        asked(kind, replica, items, advantages)
    assert not replica.requests
