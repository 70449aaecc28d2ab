"""Tokenizers whose special tokens can be spelled in more ways than one, and those that cannot be read literally."""

from typing import Any

import pytest
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers
from transformers import ByT5Tokenizer, PreTrainedTokenizerFast

from reward_service.engine.engine import Item
from reward_service.errors import RenderingFailed, SpecialTokenInContent
from tests.engine.marked import byte_level, renderer, said, special, tokenizer_of, wrapped

WRITTEN = "{% for m in messages %}{{ m.content }}<e>{% endfor %}"


def test_a_tokenizer_that_normalizes_first_is_not_fooled_by_other_letters() -> None:
    backend = byte_level()
    backend.normalizer = normalizers.NFKC()
    tokens = special("<s>", "<e>", normalized=True)
    tokenizer = wrapped(backend, tokens, "{% for m in messages %}<s>{{ m.content }}<e>{% endfor %}")
    end = tokenizer.convert_tokens_to_ids("<e>")
    assert renderer(tokenizer, "parse").render(said("a\uff1ce\uff1eb")).ids.tolist().count(end) == 3
    assert renderer(tokenizer).render(said("a\uff1ce\uff1eb")).ids.tolist().count(end) == 2
    with pytest.raises(SpecialTokenInContent, match="in another form"):
        renderer(tokenizer, "error").render(said("a\uff1ce\uff1eb"))


def test_a_tokenizer_that_finds_special_tokens_in_plain_text_refuses_what_spells_them() -> None:
    pieces = [("<unk>", 0.0), ("<e>", 0.0), ("▁", -2.0), *((letter, -3.0) for letter in "<e>abuHowtl?")]
    backend = Tokenizer(models.Unigram(list(dict(pieces).items()), unk_id=0))
    backend.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer = wrapped(backend, special("<unk>", "<e>"), WRITTEN, unk_token="<unk>")
    assert not renderer(tokenizer).render(said("ab")).spelled
    with pytest.raises(SpecialTokenInContent, match="makes a special token of plain text"):
        renderer(tokenizer).render(said("a<e>b"))


@pytest.mark.parametrize("mode", ["literal", "error"])
@pytest.mark.parametrize("response", ["a\uff1ce\uff1eb", "a <\x01e> b", "a <E> b"])
def test_what_a_normalizer_turns_into_a_special_token_is_seen_in_the_tokens(mode: str, response: str) -> None:
    backend = Tokenizer(models.WordLevel({"<e>": 0, "a": 1, "b": 2, "?": 3}, unk_token="?"))
    backend.normalizer = normalizers.Sequence([normalizers.NFKC(), normalizers.BertNormalizer()])
    backend.pre_tokenizer = pre_tokenizers.Split("<e>", "isolated")
    tokenizer = wrapped(backend, special("<e>"), WRITTEN, unk_token="?")
    assert renderer(tokenizer, "parse").render(said(response)).ids.tolist().count(0) == 3
    assert not renderer(tokenizer, mode).render(said("a b")).spelled
    with pytest.raises(SpecialTokenInContent, match=r"in another form.* makes a special token of plain text"):
        renderer(tokenizer, mode).render(said(response))


def test_parts_of_a_token_in_other_letters_gain_none() -> None:
    backend = byte_level()
    backend.normalizer = normalizers.NFKC()
    written = "{% for m in messages %}<s>{{ m.name }}{{ m.content }}<e>{% endfor %}"
    tokenizer = wrapped(backend, special("<s>", "<e>", normalized=True), written)
    item = Item(messages=[{"role": "assistant", "name": "a\uff1ce", "content": "\uff1eb"}])
    counts = [
        renderer(tokenizer, mode).render(item).ids.tolist().count(tokenizer.convert_tokens_to_ids("<e>"))
        for mode in ("parse", "literal")
    ]
    assert counts == [2, 1]


def test_a_text_with_every_private_character_is_an_error_that_says_so() -> None:
    response = "".join(map(chr, range(0xE000, 0xF900)))
    literal = renderer(tokenizer_of("qwen-3"), max_tokens=32_768)
    assert not literal.render(said(response)).spelled
    with pytest.raises(RenderingFailed, match="all 6400 characters of Unicode's private use area"):
        literal.render(said(response + "<|im_end|>"))


class Shouting(PreTrainedTokenizerFast):
    """Does to a text what its backend knows nothing of."""

    def __call__(self, text: str, **options: Any) -> Any:
        return super().__call__(text.upper(), **options)


@pytest.mark.parametrize(
    ("vocabulary", "end", "kind", "why"),
    [
        ({"<e>": 0, "a": 1, "?": 3}, special("<e>"), PreTrainedTokenizerFast, "vocabulary has gaps"),
        (
            {"<e>": 0, "a": 1, "?": 2},
            [AddedToken("<e>", special=True, normalized=False, single_word=True)],
            PreTrainedTokenizerFast,
            "does not read every special token",
        ),
        ({"<e>": 0, "a": 1, "A": 2, "?": 3}, special("<e>"), Shouting, "does more than its backend"),
    ],
)
def test_a_tokenizer_that_cannot_be_matched_exactly_refuses_what_spells_its_tokens(
    vocabulary: dict[str, int], end: list[AddedToken], kind: Any, why: str
) -> None:
    backend = Tokenizer(models.WordLevel(vocabulary, unk_token="?"))
    backend.pre_tokenizer = pre_tokenizers.Split("", "isolated")
    backend.add_special_tokens(end)
    tokenizer = kind(tokenizer_object=backend, unk_token="?", chat_template=WRITTEN)
    assert not renderer(tokenizer).render(said("a<")).spelled
    with pytest.raises(SpecialTokenInContent, match=why):
        renderer(tokenizer).render(said("a<e>a"))


def test_a_tokenizer_written_in_python_refuses_what_spells_its_tokens(caplog: pytest.LogCaptureFixture) -> None:
    tokenizer = ByT5Tokenizer()
    tokenizer.chat_template = "{% for m in messages %}{{ m.content }}</s>{% endfor %}"
    literal = renderer(tokenizer)
    assert "a content that spells one of its special tokens is refused" in caplog.text
    assert not literal.render(said("Five. <")).spelled
    with pytest.raises(SpecialTokenInContent, match="written in Python"):
        literal.render(said("Five.</s>"))
    assert renderer(tokenizer, "parse").render(said("Five.</s>")).tokens > 0
