"""Token ids of every template family against Transformers' own, and the options of rendering."""

from typing import Any

import numpy as np
import pytest

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Item
from reward_service.engine.rendering import Renderer, pooled_index, without_reasoning
from reward_service.errors import ConversationTooLong, RenderingFailed, UnfinishedResponse
from tests.engine.models import BOS, EOS, FAMILIES, PAD, make_tokenizer

TURNS = [
    {"role": "user", "content": "What is a list?"},
    {"role": "assistant", "content": "A sequence."},
    {"role": "user", "content": "And <a> a\ntuple?  "},
    {"role": "assistant", "content": "An immutable one.\n"},
]
WEATHER = {"type": "function", "function": {"name": "weather", "parameters": {"type": "object"}}}


def tokenizer_of(family: str) -> Any:
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = FAMILIES[family][1]
    return tokenizer


def renderer(tokenizer: Any, pad: int | None = PAD, **options: Any) -> Renderer:
    config = ClassifierConfig(name="m", source="s", **options)
    backend = tokenizer.backend_tokenizer
    backend.no_truncation()
    backend.no_padding()
    return Renderer(tokenizer, config, max_tokens=config.max_tokens, pad_token_id=pad)


def response(content: str, **more: Any) -> Item:
    return Item(messages=[TURNS[0], {"role": "assistant", "content": content, **more}])


def text_of(tokenizer: Any, item: Item, **options: Any) -> str:
    return str(tokenizer.decode(renderer(tokenizer, **options).render(item).ids.tolist()))


@pytest.mark.parametrize("family", FAMILIES)
def test_ids_are_those_of_apply_chat_template(family: str) -> None:
    tokenizer = tokenizer_of(family)
    for messages in (TURNS, TURNS[:2], TURNS[:1]):
        expected = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert renderer(tokenizer).render(Item(messages=messages)).ids.tolist() == expected


def test_tools_reach_the_template() -> None:
    tokenizer = tokenizer_of("bos")
    expected = tokenizer.apply_chat_template(TURNS, tools=[WEATHER], tokenize=True, return_dict=False)
    assert renderer(tokenizer).render(Item(messages=TURNS, tools=[WEATHER])).ids.tolist() == expected


def test_there_is_one_bos_whoever_writes_it() -> None:
    tokenizer = tokenizer_of("bos")
    rendered = tokenizer.apply_chat_template(TURNS, tokenize=False)
    items = [Item(messages=TURNS), Item(text=rendered), Item(text=rendered.removeprefix("<s>"))]
    rows = [renderer(tokenizer).render(item).ids.tolist() for item in items]
    assert rows[0] == rows[1] == rows[2]
    assert rows[0].count(BOS) == 1


def test_a_text_for_an_encoder_gets_its_special_tokens_once() -> None:
    tokenizer = tokenizer_of("encoder")
    for text in ("hello", "[CLS]hello[SEP]"):
        assert tokenizer.decode(renderer(tokenizer).render(Item(text=text)).ids.tolist()) == "[CLS]hello[SEP]"


@pytest.mark.parametrize(
    ("ids", "pad", "index"),
    [
        ([5, 6, 7], PAD, 2),
        ([5, EOS, 6, EOS], EOS, 2),
        ([5, 6, PAD, PAD], PAD, 1),
        ([PAD, PAD], PAD, 0),
        ([5, 6], None, 1),
    ],
)
def test_the_pooled_token_is_the_last_that_is_not_the_pad(ids: list[int], pad: int | None, index: int) -> None:
    assert pooled_index(np.array(ids, dtype=np.int32), pad) == index


def test_the_template_s_refusal_is_the_error() -> None:
    messages = [{"role": "system", "content": "Be brief."}, *TURNS]
    with pytest.raises(RenderingFailed, match="System role not supported"):
        renderer(tokenizer_of("no_system")).render(Item(messages=messages))


def test_without_a_template_messages_are_refused_and_text_is_not() -> None:
    tokenizer = make_tokenizer("bos")
    with pytest.raises(RenderingFailed, match="no chat template"):
        renderer(tokenizer).render(Item(messages=TURNS))
    assert renderer(tokenizer).render(Item(text="hello")).ids[0] == BOS


@pytest.mark.parametrize(
    "item",
    [
        Item(messages=[]),
        Item(text="\ud800"),
        response("a", role=7),
    ],
)
def test_what_cannot_be_rendered_is_a_rendering_error(item: Item) -> None:
    tokenizer = tokenizer_of("bos")
    tokenizer.chat_template = "{% for m in messages %}{{ m.role + m.content }}{% endfor %}"
    with pytest.raises(RenderingFailed):
        renderer(tokenizer).render(item)


def test_a_text_of_no_tokens_is_a_rendering_error() -> None:
    with pytest.raises(RenderingFailed, match="no tokens"):
        renderer(tokenizer_of("pad_is_eos")).render(Item(text=""))


def test_a_tokenizer_that_cuts_and_pads_does_neither_here() -> None:
    tokenizer = make_tokenizer("cutting")
    assert tokenizer.backend_tokenizer.truncation
    assert renderer(tokenizer, EOS).render(Item(text="word " * 50)).tokens > 16


def test_too_long_is_an_error_that_names_both_numbers() -> None:
    with pytest.raises(ConversationTooLong, match=r"has \d+ tokens and the model reads 10"):
        renderer(tokenizer_of("bos"), max_tokens=10).render(Item(messages=TURNS))


def test_truncation_drops_the_oldest_tokens_and_keeps_the_bos() -> None:
    tokenizer = tokenizer_of("bos")
    whole = renderer(tokenizer).render(Item(messages=TURNS)).ids.tolist()
    for count in (1, 2, 10):
        cut = renderer(tokenizer, max_tokens=count, on_too_long="truncate_left").render(Item(messages=TURNS))
        kept = whole[-1:] if count == 1 else [BOS, *whole[len(whole) - count + 1 :]]
        assert cut.ids.tolist() == kept
    plain = tokenizer_of("pad_is_eos")
    whole = renderer(plain).render(Item(messages=TURNS)).ids.tolist()
    cut = renderer(plain, max_tokens=10, on_too_long="truncate_left").render(Item(messages=TURNS))
    assert cut.ids.tolist() == whole[-10:]


@pytest.mark.parametrize(
    ("content", "left"),
    [
        ("<think>\nhm\n</think>\n\nYes.", "Yes."),
        ("hm\n</think>\nYes.", "Yes."),
        ("<think>hm", ""),
        ("Yes.", "Yes."),
        ("Write <think> and </think>.", "Write <think> and </think>."),
    ],
)
def test_reasoning_is_what_leads_the_response(content: str, left: str) -> None:
    assert without_reasoning(content) == left


def test_keep_renders_what_the_template_makes_of_the_reasoning_and_strip_takes_it_out() -> None:
    tokenizer = tokenizer_of("thinking")
    inline, field = response("<think>\nhm\n</think>\n\nYes."), response("Yes.", reasoning_content="hm")
    for item in (inline, field):
        assert text_of(tokenizer, item).endswith("<think>\nhm\n</think>\n\nYes.<end>\n")
        assert text_of(tokenizer, item, reasoning="strip").endswith("<think>\n\n</think>\n\nYes.<end>\n")
    assert "hm" not in text_of(tokenizer_of("bos"), inline, reasoning="strip")


@pytest.mark.parametrize("content", ["It depends on", "It depends on ", "", "Two\n"])
@pytest.mark.parametrize("family", ["bos", "pad_is_eos", "no_system"])
def test_an_unfinished_response_has_no_end_of_turn(family: str, content: str) -> None:
    tokenizer = tokenizer_of(family)
    messages = [TURNS[0], {"role": "assistant", "content": content}]
    expected = tokenizer.apply_chat_template(messages, continue_final_message=True, tokenize=True, return_dict=False)
    item = Item(messages=messages, finish_reason="length")
    assert renderer(tokenizer).render(item).ids.tolist() == expected


def test_an_unfinished_response_is_cut_also_where_the_template_rewrites_it() -> None:
    item = Item(
        messages=[TURNS[0], {"role": "assistant", "content": "<think>hm</think>It dep"}], finish_reason="length"
    )
    assert text_of(tokenizer_of("thinking"), item).endswith("<think>\nhm\n</think>\n\nIt dep")


def test_an_unfinished_response_can_be_refused() -> None:
    item = Item(messages=TURNS, finish_reason="length")
    with pytest.raises(UnfinishedResponse):
        renderer(tokenizer_of("bos"), on_unfinished="error").render(item)


@pytest.mark.parametrize("family", FAMILIES)
def test_the_response_s_tokens_are_counted(family: str) -> None:
    tokenizer = tokenizer_of(family)
    count = len(tokenizer("An immutable one", add_special_tokens=False)["input_ids"])
    messages = [*TURNS[:3], {"role": "assistant", "content": "An immutable one"}]
    for finish_reason in ("stop", "length"):
        rendered = renderer(tokenizer).render(Item(messages=messages, finish_reason=finish_reason))
        assert rendered.response_tokens == count
    assert (renderer(tokenizer).render(response("Done.\n")).response_tokens or 0) >= 1
    assert renderer(tokenizer).render(response("end")).response_tokens in (1, 2)
    assert renderer(tokenizer).render(response("")).response_tokens == 0
    assert renderer(tokenizer).render(Item(text="hello")).response_tokens is None


def test_a_text_that_cannot_fit_is_refused_without_being_tokenized(monkeypatch: pytest.MonkeyPatch) -> None:
    tokenizer = tokenizer_of("bos")
    strict, cutting = (renderer(tokenizer, max_tokens=16, on_too_long=way) for way in ("error", "truncate_left"))
    assert len(cutting.render(Item(text="word " * 300)).ids) == 16
    monkeypatch.setattr(strict, "_tokenizer", None)
    with pytest.raises(ConversationTooLong, match="1500 characters, more than the 16 tokens"):
        strict.render(Item(text="word " * 300))


def test_beginnings_that_are_kept_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("reward_service.engine.rendering.LONGEST_KEPT", 1000)
    tokenizer = tokenizer_of("pad_is_eos")
    rendering = renderer(tokenizer)
    for words, kept in ((100, 1), (400, 1)):
        item = Item(messages=[{"role": "user", "content": "word " * words}, TURNS[1]])
        expected = tokenizer.apply_chat_template(item.messages, tokenize=True, return_dict=False)
        assert rendering.render(item).ids.tolist() == expected
        assert rendering._tokens_of_beginning.cache_info().currsize == kept
