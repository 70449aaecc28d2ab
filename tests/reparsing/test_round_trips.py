"""`reparse` gives the messages back that a chat template rendered."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from reward_service.reparsing import Message, reparse
from tests.conversations import real_conversations
from tests.reparsing.rendering import BY_NAME, TEMPLATES, Written, assistant, system, user

every_template = pytest.mark.parametrize("template", TEMPLATES, ids=lambda template: template.name)
CODE = 'def f(x):\n\treturn {\'a\': x[0], "b": "\\n"}\n\n\n# <b>bold</b>, a -> b, 5 < 6\n```python\nprint(1)\n```'
LOOK_ALIKES = (
    "an <|im_start is no [INST ], <start_of_turn>, </ s>, <|eot_id, <｜User, Human: or \n\nAssistant : <|user|>"
)
CONVERSATIONS: dict[str, list[Message]] = {
    "one exchange": [user("What is 2 + 2?"), assistant("4")],
    "three exchanges": [user("a"), assistant("b"), user("c"), assistant("d"), user("e"), assistant("f")],
    "emoji and scripts": [user("👩‍👩‍👧‍👦 ñ 你好 עברית"), assistant("\u202e🇫🇷 ﷽ \ufffd e\u0301")],
    "code": [user(f"Explain:\n{CODE}"), assistant(CODE)],
    "thoughts": [user("why?"), assistant("<think>\nFirst, then.\n</think>\n\nBecause.")],
    "marker look-alikes": [user(LOOK_ALIKES), assistant(LOOK_ALIKES), user(LOOK_ALIKES), assistant(LOOK_ALIKES)],
    "lines as responses": [user("-\n-"), assistant("1.\n\n2.\n\n\n3."), user("|a|\n|-|"), assistant("<br>")],
}
WITH_SYSTEM: list[Message] = [
    system("You are Ada.\n\nBe brief: 1 line."),
    user("Hi"),
    assistant("Hello."),
    user("?"),
    assistant("!"),
]
BLANKS: list[Message] = [user("\n\n  indented\n"), assistant("\n a \n\n"), user("\tb\n"), assistant("\n\n\nc\n")]


@every_template
@pytest.mark.parametrize("messages", CONVERSATIONS.values(), ids=CONVERSATIONS)
def test_the_messages_come_back(template: Written, messages: list[Message]) -> None:
    dialogue = reparse(template.render(messages))
    assert list(dialogue.messages) == messages
    assert dialogue.is_finished
    assert dialogue.template == template.family


@pytest.mark.parametrize("template", [one for one in TEMPLATES if one.system], ids=lambda template: template.name)
def test_a_system_prompt_comes_back(template: Written) -> None:
    assert list(reparse(template.render(WITH_SYSTEM)).messages) == WITH_SYSTEM


@pytest.mark.parametrize("name", ["qwen-2.5", "deepseek-r1", "deepseek-v3.1", "mistral-v7-tekken", "zephyr"])
def test_blanks_around_contents_come_back_where_the_template_keeps_them(name: str) -> None:
    assert list(reparse(BY_NAME[name].render(BLANKS)).messages) == BLANKS


@every_template
def test_what_the_template_trims_is_trimmed_and_no_more(template: Written) -> None:
    messages = [user("a b"), assistant("c  d\n\ne")]
    assert list(reparse(template.render(messages)).messages) == messages


def test_a_system_prompt_that_gemma_folds_into_the_first_user_turn_stays_there() -> None:
    assert list(reparse(BY_NAME["gemma-3"].render(WITH_SYSTEM)).messages) == [
        user("You are Ada.\n\nBe brief: 1 line.\n\nHi"),
        *WITH_SYSTEM[2:],
    ]


@every_template
def test_100_helpful_and_100_harmless_real_conversations_come_back(template: Written) -> None:
    conversations = real_conversations(200)
    assert len(conversations) == 200
    for messages in conversations:
        dialogue = reparse(template.render(messages))
        assert list(dialogue.messages) == messages
        assert dialogue.is_finished


@every_template
def test_real_conversations_with_padding_on_both_sides_come_back(template: Written) -> None:
    for messages in real_conversations(20):
        for pad in ("<pad>", "[PAD]", template.eos):
            dialogue = reparse(f"{pad * 7}{template.render(messages)}{pad * 3}")
            assert list(dialogue.messages) == messages
            assert dialogue.is_finished


# No markers, no blanks at the ends, and none of the words that DeepSeek V2 takes for markers.
texts = st.text(st.characters(exclude_categories=["Cs"], exclude_characters="<[|｜>]:"), min_size=1).map(
    lambda text: f"a{text}z"
)


@every_template
@given(contents=st.lists(st.tuples(texts, texts), min_size=1, max_size=4))
def test_any_texts_come_back(template: Written, contents: list[tuple[str, str]]) -> None:
    messages = [message for said, answer in contents for message in (user(said), assistant(answer))]
    assert list(reparse(template.render(messages)).messages) == messages
