import pytest
from jinja2 import TemplateError
from transformers import PreTrainedTokenizerFast

from reward_service.training.preferences import Message
from reward_service.training.tokenizer import END_OF_TURN, PAD, render, train_tokenizer

CONVERSATION: list[Message] = [
    {"role": "system", "content": "Be kind."},
    {"role": "user", "content": " How are you? "},
    {"role": "assistant", "content": "Fine, naïve 🐦!"},
]


@pytest.fixture(scope="module")
def tokenizer() -> PreTrainedTokenizerFast:
    return train_tokenizer(["How are you? I am fine, thank you."] * 4, vocab_size=300, max_length=64)


def test_each_turn_opens_with_its_role_and_ends(tokenizer: PreTrainedTokenizerFast) -> None:
    text = "<|system|>Be kind.<|end|><|user|>How are you?<|end|><|assistant|>Fine, naïve 🐦!<|end|>"
    assert tokenizer.decode(render(tokenizer, CONVERSATION)) == text


def test_a_generation_prompt_opens_the_assistants_turn(tokenizer: PreTrainedTokenizerFast) -> None:
    text = tokenizer.apply_chat_template(CONVERSATION[1:2], tokenize=False, add_generation_prompt=True)
    assert text == "<|user|>How are you?<|end|><|assistant|>"


def test_the_last_token_ends_the_turn_and_is_not_the_pad(tokenizer: PreTrainedTokenizerFast) -> None:
    assert render(tokenizer, CONVERSATION)[-1] == tokenizer.convert_tokens_to_ids(END_OF_TURN) == tokenizer.eos_token_id
    assert tokenizer.pad_token_id == tokenizer.convert_tokens_to_ids(PAD) != tokenizer.eos_token_id


def test_a_long_conversation_loses_its_beginning(tokenizer: PreTrainedTokenizerFast) -> None:
    whole = render(tokenizer, CONVERSATION)
    assert render(tokenizer, CONVERSATION, max_length=9) == whole[-9:]


def test_an_unknown_role_is_refused(tokenizer: PreTrainedTokenizerFast) -> None:
    with pytest.raises(TemplateError, match="unknown role critic"):
        render(tokenizer, [{"role": "critic", "content": "Bad."}])
