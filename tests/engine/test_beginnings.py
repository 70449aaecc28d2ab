"""A text that is cut where `cuts_of` allows has the tokens of the whole, whatever the tokenizer does to text."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import AddedToken, Tokenizer, models, normalizers, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reward_service.config import ClassifierConfig
from reward_service.engine.beginnings import FROM_CHARACTERS, cuts_of
from reward_service.engine.engine import Item
from reward_service.engine.rendering import Renderer
from tests.engine.models import FAMILIES, make_tokenizer

SAMPLE = [
    "A list, a tuple; the  set of all sets.",
    "Ünïcode ﬁ e\u0301 \u200d 👩‍👩‍👧 naïve",
    "if x == 1:\n\treturn 'y'  ",
]
PIECES = [
    *SAMPLE,
    " ",
    "\n",
    "  ",
    "<|user|>",
    "<|end|>",
    "<|user",
    "|>",
    "▁",
    "\u0301",
    "ﬁ",
    "x",
    "<s>",
    "</s>",
    "###",
]
MARKS = ("<|user|>", "<|end|>")
KINDS: dict[str, tuple[Any, Any]] = {
    "bytes": (None, pre_tokenizers.ByteLevel(add_prefix_space=False)),
    "bytes with a space before each": (None, pre_tokenizers.ByteLevel(add_prefix_space=True)),
    "metaspace first": (None, pre_tokenizers.Metaspace(prepend_scheme="first")),
    "metaspace always": (normalizers.NFKC(), pre_tokenizers.Metaspace(prepend_scheme="always")),
    "prepended": (
        normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")]),
        pre_tokenizers.ByteLevel(add_prefix_space=False),
    ),
    "stripped": (
        normalizers.Sequence([normalizers.NFD(), normalizers.StripAccents(), normalizers.Strip()]),
        pre_tokenizers.Whitespace(),
    ),
    "bert": (normalizers.BertNormalizer(), pre_tokenizers.BertPreTokenizer()),
}


def tokenizer_of(kind: str, *special: AddedToken | str) -> Any:
    normalizer, pre_tokenizer = KINDS[kind]
    backend = Tokenizer(models.BPE(unk_token="<unk>"))
    backend.normalizer, backend.pre_tokenizer = normalizer, pre_tokenizer
    trainer = trainers.BpeTrainer(vocab_size=400, special_tokens=["<unk>", "<s>", "</s>"], show_progress=False)
    backend.train_from_iterator(SAMPLE * 3, trainer)
    fast: Any = PreTrainedTokenizerFast
    tokenizer = fast(tokenizer_object=backend, unk_token="<unk>")
    tokenizer.add_special_tokens({"additional_special_tokens": list(special or MARKS)})
    return tokenizer


def tokens(tokenizer: Any, text: str) -> list[int]:
    found: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return found


TOKENIZERS = {kind: tokenizer_of(kind) for kind in KINDS}


@pytest.mark.parametrize("kind", KINDS)
@given(
    head=st.lists(st.sampled_from(PIECES), min_size=1, max_size=30), tail=st.lists(st.sampled_from(PIECES), max_size=9)
)
def test_the_parts_have_the_tokens_of_the_whole(kind: str, head: list[str], tail: list[str]) -> None:
    tokenizer, before = TOKENIZERS[kind], "Some words first. " * 20 + "".join(head)
    text = before + "".join(tail)
    beginning, rest = cuts_of(tokenizer, "".join(MARKS)).split(text, len(before))
    assert beginning + rest == text
    assert tokens(tokenizer, beginning) + tokens(tokenizer, rest) == tokens(tokenizer, text)


def test_a_text_is_cut_at_the_last_mark_that_ends_before_the_response() -> None:
    cuts = cuts_of(TOKENIZERS["bytes"], "".join(MARKS))
    prompt = "<|user|>" + "a" * FROM_CHARACTERS
    assert cuts.split(prompt + "<|end|>tail<|end|>", len(prompt) + 7) == (prompt, "<|end|>tail<|end|>")
    assert cuts.split(prompt + "<|end|>tail", len(prompt) + 6) == ("", prompt + "<|end|>tail")
    assert cuts.split("<|user|>short<|end|>", 20) == ("", "<|user|>short<|end|>")


@pytest.mark.parametrize(
    "special",
    [
        [AddedToken("<|end|>", special=True, normalized=False, lstrip=True)],
        [AddedToken("<|end|>", special=True, normalized=True)],
        [AddedToken("<|end|>", special=True, normalized=False, single_word=True)],
        [AddedToken("<|end|>", special=True, normalized=False), AddedToken("x<|end|>", special=False)],
        [AddedToken("<|end|>", special=True, normalized=False), AddedToken(">><", special=False)],
        [AddedToken("##", special=True, normalized=False)],
    ],
)
def test_a_token_that_something_reaches_across_is_no_mark(special: list[AddedToken]) -> None:
    assert cuts_of(tokenizer_of("bytes", *special), "<|end|>##").marks == ()


def test_a_tokenizer_without_its_special_tokens_in_the_template_is_not_cut() -> None:
    assert cuts_of(TOKENIZERS["bytes"], "User: u").marks == ()
    assert cuts_of(object(), "<|end|>").marks == ()


@pytest.mark.parametrize("family", FAMILIES)
def test_rendering_gives_the_same_again_and_with_other_responses(family: str) -> None:
    tokenizer = make_tokenizer(family)
    tokenizer.chat_template = FAMILIES[family][1]
    tokenizer.backend_tokenizer.no_truncation()
    tokenizer.backend_tokenizer.no_padding()
    config = ClassifierConfig(name="m", source="s", special_tokens_in_content="parse")
    renderer = Renderer(tokenizer, config, max_tokens=4096, pad_token_id=None)
    question = {"role": "user", "content": "What is a <s> list? " * 40}
    for content in ("One.", "One.", "Two <turn> </s> [SEP] three.", " \n", ""):
        messages = [question, {"role": "assistant", "content": content}]
        expected = tokenizer.apply_chat_template(messages, tokenize=True, return_dict=False)
        assert renderer.render(Item(messages=messages)).ids.tolist() == expected
