import random

import numpy as np
import pytest
import torch
from scipy.special import log_expit

from reward_service.training.bradley_terry import BradleyTerry, centering_loss, preference_loss
from reward_service.training.language_model import Architecture, WarmUp
from reward_service.training.margins import accuracy
from reward_service.training.preferences import Pair
from reward_service.training.recipe import Recipe, pair_margins, texts, train_reward_model, warm_start

TINY = Recipe(
    vocab_size=320,
    architecture=Architecture(hidden_size=64, intermediate_size=64, num_layers=1, num_heads=1),
    warm_up=WarmUp(epochs=1, block_tokens=32, batch_blocks=4),
    bradley_terry=BradleyTerry(epochs=4, batch_pairs=8, max_tokens=64, learning_rate=5e-3, language_weight=0.0),
)
GOOD, BAD = ["kind", "warm", "gentle", "fair"], ["cruel", "cold", "nasty", "mean"]


def polite_pairs(count: int, seed: int) -> list[Pair]:
    draw = random.Random(seed)
    return [
        Pair(
            ({"role": "user", "content": f"How was person {draw.randrange(10**6)}?"},),
            f"They were {draw.choice(GOOD)}.",
            f"They were {draw.choice(BAD)}.",
        )
        for _ in range(count)
    ]


def test_the_loss_is_minus_log_sigmoid_of_the_margin() -> None:
    chosen, rejected = torch.tensor([1.0, -2.0, 800.0, -800.0]), torch.tensor([0.5, 1.0, 0.0, 0.0])
    expected = -log_expit((chosen - rejected).numpy()).mean()
    assert float(preference_loss(chosen, rejected)) == pytest.approx(expected)


def test_the_gradient_is_the_probability_of_the_mistake() -> None:
    chosen, rejected = torch.tensor([0.7], requires_grad=True), torch.tensor([0.2])
    preference_loss(chosen, rejected).backward()
    assert chosen.grad is not None
    assert float(chosen.grad) == pytest.approx(-1.0 / (1.0 + np.exp(0.5)))


def test_centering_is_zero_for_opposite_rewards() -> None:
    assert float(centering_loss(torch.tensor([1.0, 2.0]), torch.tensor([-1.0, -2.0]))) == 0.0
    assert float(centering_loss(torch.tensor([1.0]), torch.tensor([2.0]))) == 9.0


def test_a_tiny_model_learns_a_preference_that_can_be_learnt() -> None:
    pairs, unseen = polite_pairs(160, seed=1), polite_pairs(60, seed=2)
    start = warm_start(texts(pairs), TINY, seed=0)
    untrained = train_reward_model(start, pairs[:8], recipe_without_steps(), seed=0)
    trained = train_reward_model(start, pairs, TINY, seed=0)
    before = accuracy(pair_margins(untrained, start.tokenizer, unseen))
    after = accuracy(pair_margins(trained, start.tokenizer, unseen))
    assert after > max(0.9, before)


def recipe_without_steps() -> Recipe:
    return Recipe(TINY.vocab_size, TINY.architecture, TINY.warm_up, BradleyTerry(epochs=0, max_tokens=64))


def test_the_same_seed_gives_the_same_margins() -> None:
    pairs = polite_pairs(24, seed=3)
    runs = []
    for _ in range(2):
        start = warm_start(texts(pairs), TINY, seed=7)
        runs.append(pair_margins(train_reward_model(start, pairs, TINY, seed=7), start.tokenizer, pairs))
    assert np.array_equal(runs[0], runs[1])


def test_warm_up_texts_do_not_tell_which_response_was_chosen() -> None:
    pairs = polite_pairs(10, seed=4)
    after_a_prompt = [text[-1]["content"] for text in texts(pairs) if len(text) > 1]
    chosen = [response == pair.chosen for response, pair in zip(after_a_prompt, pairs, strict=True)]
    assert chosen == [False, True] * 5


def test_margins_do_not_depend_on_the_neighbours_in_a_batch() -> None:
    pairs = polite_pairs(12, seed=5)
    start = warm_start(texts(pairs), TINY, seed=0)
    model = train_reward_model(start, pairs, TINY, seed=0)
    together = pair_margins(model, start.tokenizer, pairs)
    alone = [pair_margins(model, start.tokenizer, [pair])[0] for pair in pairs]
    assert together == pytest.approx(np.array(alone), abs=1e-4)
