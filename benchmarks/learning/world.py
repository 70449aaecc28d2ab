"""A small world of questions about topics, in which saying much and being brief pull apart.

A response may name up to six facts of its topic and wrap them in phrases that say nothing. A topic's facts are one, two
or three words long: what a detail costs differs from prompt to prompt. `detail` and `brevity` are the true attributes,
in the units in which preferences are drawn: nats of a Bradley-Terry log-odds.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from reward_service.training.preferences import Pair

TOPICS = """apple river piano tiger ocean candle desert engine forest garden hammer island jacket kettle lemon mirror
needle parrot rabbit tunnel window basket castle eagle feather guitar insect jungle ladder magnet""".split()
WORDS = """red blue green warm cold sweet bitter heavy light round flat sharp soft loud quiet fast slow old young wet
dry deep thin tall short rich plain bright dark smooth rough strong brittle hollow solid rare common useful costly wild
tame sacred local coastal northern ancient modern woven carved painted melted frozen hidden golden silver wooden striped
spotted salty fresh gentle famous""".split()
FORMS = ("tell me about the {}", "what is a {} ?", "in short , what is a {} ?")
OPENERS = ("well ,", "good question ,", "let me think ,")
CLOSERS = ("hope that helps .", "just ask again .")
FACT_WORDS = (1, 2, 3)
FACTS = 6
FEWEST_FACTS, MOST_FACTS = (1, 0, 0), (6, 5, 4)
"""By form of the question."""
SPOILED_SHARE = 0.4
"""Share of the responses of preference pairs that repeat facts, stray to another topic, or end in loose words."""
NATS_PER_FACT = 2.4
NATS_PER_WORD = 0.9
ATTRIBUTES = ("detail", "brevity")


@dataclass(frozen=True, slots=True)
class Prompt:
    """A question, its topic, and which form it has."""

    text: str
    topic: str
    form: int


class World:
    """Topics with their facts, drawn from `seed`; three topics in ten are held out of the policy's training."""

    def __init__(self, seed: int, topics: int = len(TOPICS)) -> None:
        self.seed = seed
        random = np.random.default_rng([seed, 1])
        names = [TOPICS[index] for index in random.permutation(len(TOPICS))[:topics]]
        self.facts = {name: _facts(random, FACT_WORDS[at % len(FACT_WORDS)]) for at, name in enumerate(names)}
        self.train = _prompts(names[topics * 3 // 10 :])
        self.held_out = _prompts(names[: topics * 3 // 10])

    @property
    def prompts(self) -> list[Prompt]:
        """All questions."""
        return [*self.train, *self.held_out]

    @property
    def measured(self) -> list[Prompt]:
        """As many questions that are trained on as are held out, then those."""
        return [*self.train[: len(self.held_out)], *self.held_out]

    def response(self, random: np.random.Generator, prompt: Prompt) -> str:
        """What people here would say: a few facts, with phrases around them."""
        count = int(random.integers(FEWEST_FACTS[prompt.form], MOST_FACTS[prompt.form] + 1))
        return _phrased(random, _some(random, self.facts[prompt.topic], count))

    def spoiled_response(self, random: np.random.Generator, prompt: Prompt) -> str:
        """A response that repeats itself, strays from its topic and ends in loose words."""
        topics = list(self.facts)
        other = topics[int(random.integers(len(topics)))]
        own = _some(random, self.facts[prompt.topic], int(random.integers(0, 4)))
        repeated = own[: int(random.integers(0, 4))]
        foreign = _some(random, self.facts[other], int(random.integers(0, 3)))
        loose = _some(random, [*WORDS, *",.,.?"], int(random.integers(0, 5)))
        return _phrased(random, [*own, *repeated, *foreign, *loose])

    def detail(self, prompt: Prompt, response: str) -> float:
        """Nats for the different facts of the prompt's topic that the response names."""
        padded = f" {response} "
        return NATS_PER_FACT * sum(f" {fact} " in padded for fact in self.facts[prompt.topic])

    def brevity(self, _: Prompt, response: str) -> float:
        """Nats that the words of the response cost; punctuation is free."""
        return -NATS_PER_WORD * sum(word[0].isalnum() for word in response.split())

    def pairs(self, attribute: str, count: int, seed: int) -> list[Pair]:
        """Preferences over two responses to one prompt, each label drawn by Bradley-Terry from the true attribute."""
        random = np.random.default_rng([seed, 2, ATTRIBUTES.index(attribute)])
        true = self.detail if attribute == "detail" else self.brevity
        prompts = self.prompts
        pairs: list[Pair] = []
        while len(pairs) < count:
            prompt = prompts[int(random.integers(len(prompts)))]
            first, second = (self._any_response(random, prompt) for _ in range(2))
            margin = true(prompt, first) - true(prompt, second)
            if random.random() > 1 / (1 + np.exp(-margin)):
                first, second = second, first
            pairs.append(Pair(({"role": "user", "content": prompt.text},), first, second))
        return pairs

    def _any_response(self, random: np.random.Generator, prompt: Prompt) -> str:
        spoiled = random.random() < SPOILED_SHARE
        return self.spoiled_response(random, prompt) if spoiled else self.response(random, prompt)


def _facts(random: np.random.Generator, words: int) -> tuple[str, ...]:
    """Facts of one topic, no word twice."""
    drawn = [WORDS[index] for index in random.permutation(len(WORDS))[: FACTS * words]]
    return tuple(" ".join(drawn[at * words : (at + 1) * words]) for at in range(FACTS))


def _prompts(topics: Sequence[str]) -> list[Prompt]:
    return [Prompt(form.format(topic), topic, at) for topic in topics for at, form in enumerate(FORMS)]


def _some(random: np.random.Generator, items: Sequence[str], count: int) -> list[str]:
    return [items[index] for index in random.permutation(len(items))[:count]]


def _phrased(random: np.random.Generator, facts: Sequence[str]) -> str:
    """Phrases, the facts in a sentence, and phrases; each phrase stands there in one of two responses."""
    opening, closing = ([phrase for phrase in phrases if random.random() < 0.5] for phrases in (OPENERS, CLOSERS))
    sentence = f"it is {' '.join(facts)} ." if facts else "no idea ."
    return " ".join([*opening, sentence, *closing])
