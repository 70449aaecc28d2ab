"""A byte-level BPE tokenizer trained from texts, with the chat template that the demo models are trained on."""

from collections.abc import Iterable, Sequence

from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import PreTrainedTokenizerFast

from reward_service.training.preferences import Message

PAD = "<|pad|>"
END_OF_TURN = "<|end|>"
SPECIAL_TOKENS = [PAD, END_OF_TURN, "<|system|>", "<|user|>", "<|assistant|>"]

# One token opens a turn and one ends it; a reward model reads its score at the last END_OF_TURN.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] not in ['system', 'user', 'assistant'] %}"
    "{{ raise_exception('unknown role ' ~ message['role']) }}"
    "{% endif %}"
    "{{ '<|' ~ message['role'] ~ '|>' ~ (message['content'] | trim) ~ '<|end|>' }}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)


def train_tokenizer(texts: Iterable[str], vocab_size: int, max_length: int) -> PreTrainedTokenizerFast:
    """Byte-level BPE of `vocab_size` tokens that reads conversations of `max_length` tokens, cut on the left."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    alphabet = pre_tokenizers.ByteLevel.alphabet()
    bpe.train_from_iterator(
        texts,
        trainers.BpeTrainer(
            vocab_size=vocab_size, special_tokens=SPECIAL_TOKENS, initial_alphabet=alphabet, show_progress=False
        ),
    )
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        eos_token=END_OF_TURN,
        chat_template=CHAT_TEMPLATE,
        model_max_length=max_length,
        truncation_side="left",
        padding_side="right",
        clean_up_tokenization_spaces=False,
    )


def render(tokenizer: PreTrainedTokenizerFast, messages: Sequence[Message], max_length: int | None = None) -> list[int]:
    """Token ids of a conversation; of a longer one the last `max_length`, so that its response stays."""
    text = tokenizer.apply_chat_template(list(messages), tokenize=False)
    ids: list[int] = tokenizer(text, add_special_tokens=False, verbose=False)["input_ids"]
    return ids if max_length is None else ids[-max_length:]
