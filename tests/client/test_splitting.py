"""A large call is split, never inside a group, and its answer is one, in the order of the call."""

from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from reward_service.client import RequestFailed
from tests.client.scripted import Body, Kind, Replica, ask, both, conversation

groups = st.lists(st.sampled_from([None, "g1", "g2", "g3"]), min_size=1, max_size=60)


@given(groups=groups, most=st.integers(1, 20), kind=st.sampled_from(["sync", "async"]))
@settings(max_examples=60)
def test_any_call_is_answered_in_its_order_with_every_group_in_one_request(
    groups: list[str | None], most: int, kind: Kind
) -> None:
    replica = Replica()
    asked = [conversation(float(i), id=str(i), group=group) for i, group in enumerate(groups)]
    answer = ask(kind, replica, "score", asked, max_conversations_per_request=most)
    assert answer.rewards == [float(i) for i in range(len(groups))]
    assert [score.id for score in answer.scores] == [str(i) for i in range(len(groups))]
    sent = [[one["group"] for one in body["conversations"]] for body in replica.bodies]
    for group in {"g1", "g2", "g3"} & set(groups):
        assert sum(group in part for part in sent) == 1
    assert all(len(part) <= most or len(set(part)) == 1 for part in sent)
    assert answer.usage.tokens == 10 * len(asked)
    assert answer.usage.tokens_computed == 5 * len(sent)


@both
@pytest.mark.parametrize(("count", "sizes"), [(512, [512]), (513, [257, 256]), (1600, [400] * 4), (0, [0])])
def test_parts_are_few_and_of_about_one_size(kind: Kind, count: int, sizes: list[int]) -> None:
    replica = Replica()
    ask(kind, replica, "score", [conversation(1.0, prompt=str(i)) for i in range(count)])
    found = sorted((len(body["conversations"]) for body in replica.bodies), reverse=True)
    assert len(found) == len(sizes)
    assert found == pytest.approx(sizes, abs=4)


@both
def test_neighbours_with_one_prompt_stay_together_where_they_fit(kind: Kind) -> None:
    replica = Replica()
    asked = [conversation(1.0, prompt=f"p{i // 8}") for i in range(48)]
    ask(kind, replica, "score", asked, max_conversations_per_request=20)
    assert sorted(len(body["conversations"]) for body in replica.bodies) == [16, 16, 16]
    messages: list[Body] = [
        {"messages": [{"role": "user", "content": f"p{i // 8}"}, {"role": "assistant", "content": f"r{i}"}]}
        for i in range(48)
    ]
    numbers = Replica()
    ask(
        kind,
        lambda r: numbers(r),
        "score",
        [{**m, "response": "1"} for m in messages],
        max_conversations_per_request=20,
    )
    assert sorted(len(body["conversations"]) for body in numbers.bodies) == [16, 16, 16]


@both
def test_reference_responses_count_as_conversations(kind: Kind) -> None:
    replica = Replica()
    asked = [conversation(1.0, prompt=str(i), references={"m": {"responses": ["r"] * 9}}) for i in range(10)]
    ask(kind, replica, "score", asked, max_conversations_per_request=50)
    assert [len(body["conversations"]) for body in replica.bodies] == [5, 5]


@both
def test_a_body_of_too_many_bytes_is_split(kind: Kind) -> None:
    replica = Replica()
    asked = [conversation(float(i), prompt=str(i) * 1000) for i in range(9)]
    answer = ask(kind, replica, "score", asked, max_bytes_per_request=3000)
    assert answer.rewards == [float(i) for i in range(9)]
    assert max(len(request.content) for request in replica.requests) <= 3000


@both
def test_a_service_that_takes_less_than_the_client_sends_is_sent_smaller_requests(kind: Kind) -> None:
    replica = Replica(most=100)
    answer = ask(kind, replica, "score", [conversation(float(i)) for i in range(500)])
    assert answer.rewards == [float(i) for i in range(500)]


@both
def test_a_group_that_the_service_finds_too_large_is_refused_and_not_torn(kind: Kind) -> None:
    replica = Replica(most=10)
    with pytest.raises(RequestFailed, match="413 too_large"):
        ask(kind, replica, "score", [conversation(1.0, group="g") for _ in range(11)])
    assert len(replica.bodies) == 1


@both
@pytest.mark.parametrize(
    ("bad", "expected"),
    [
        (
            {"metadata": {"step": {1, 2}}},
            r"conversations\[1\].metadata.step: \{1, 2\} is a builtins.set; valid: str, int",
        ),
        (
            {"references": {"m": {"rewards": [float("nan")]}}},
            r"conversations\[1\].references.m.rewards\[0\]: nan is not",
        ),
        ({"metadata": {(1, 2): 3}}, r"conversations\[1\].metadata: the key \(1, 2\) is a tuple"),
    ],
)
def test_what_json_cannot_hold_is_named_with_its_place(kind: Kind, bad: Any, expected: str) -> None:
    replica = Replica()
    with pytest.raises(TypeError, match=expected):
        ask(kind, replica, "score", [conversation(1.0), conversation(1.0, **bad)])
    assert not replica.requests


@both
def test_half_a_surrogate_pair_is_left_for_the_service_to_refuse(kind: Kind) -> None:
    replica = Replica()
    ask(kind, replica, "score", [conversation(1.0, prompt="\ud800"), conversation(2.0)])
    assert replica.bodies[0]["conversations"][0]["prompt"] == "\ud800"
