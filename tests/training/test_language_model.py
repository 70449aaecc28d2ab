import math

import pytest
import torch
from torch.nn.functional import log_softmax

from reward_service.training.language_model import IGNORED, Architecture, WarmUp, decoder, next_token_loss, warm_up
from reward_service.training.optimization import Schedule, optimizer
from reward_service.training.tokenizer import train_tokenizer


def test_the_loss_is_the_mean_surprise_of_the_counted_tokens() -> None:
    torch.manual_seed(0)
    hidden, embedding = torch.randn(2, 4, 3), torch.randn(5, 3)
    ids = torch.tensor([[0, 1, 2, IGNORED], [4, IGNORED, 3, 0]])
    log_p = log_softmax(hidden @ embedding.T, dim=-1)
    expected = -(log_p[0, 0, 1] + log_p[0, 1, 2] + log_p[1, 1, 3] + log_p[1, 2, 0]) / 4
    assert float(next_token_loss(hidden, embedding, ids)) == pytest.approx(float(expected), rel=1e-6)


def test_the_loss_of_no_counted_token_is_zero() -> None:
    ids = torch.full((1, 3), IGNORED)
    assert float(next_token_loss(torch.randn(1, 3, 2), torch.randn(4, 2), ids)) == 0.0


def test_more_rows_than_one_part_give_the_same_mean() -> None:
    hidden, embedding = torch.zeros(3, 1000, 2), torch.zeros(7, 2)
    loss = next_token_loss(hidden, embedding, torch.zeros(3, 1000, dtype=torch.long))
    assert float(loss) == pytest.approx(math.log(7), rel=1e-5)


def test_reading_lowers_the_loss() -> None:
    texts = ["the cat sat on the mat and the dog sat on the log"] * 40
    tokenizer = train_tokenizer(texts, vocab_size=300, max_length=64)
    model = decoder(tokenizer, Architecture(hidden_size=64, intermediate_size=64, num_layers=1, num_heads=1), seed=0)
    documents = [tokenizer(text)["input_ids"] for text in texts]
    losses = warm_up(model, documents, WarmUp(epochs=4, block_tokens=16, batch_blocks=2, learning_rate=5e-3), seed=0)
    assert losses[-1] < losses[0] - 1.0


def test_the_learning_rate_rises_then_falls_to_zero() -> None:
    schedule = Schedule(peak=2.0, total_steps=20)
    assert [schedule.at(0), schedule.at(1), schedule.at(2)] == [1.0, 2.0, 2.0]
    assert schedule.at(11) == pytest.approx(1.0)
    assert schedule.at(20) == pytest.approx(0.0)


def test_only_matrices_decay() -> None:
    groups = optimizer(torch.nn.Linear(3, 2), weight_decay=0.5).param_groups
    assert [(group["weight_decay"], [tuple(p.shape) for p in group["params"]]) for group in groups] == [
        (0.5, [(2, 3)]),
        (0.0, [(2,)]),
    ]
