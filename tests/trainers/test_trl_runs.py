"""Real TRL trainers against a live service with both demo models."""

import asyncio
import pickle
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from pyarrow.parquet import read_table

from reward_service.client import Client
from reward_service.client.trainers.trl import reward_func, reward_functions, sync_reward_func, term_functions
from reward_service.demo import FOLDER
from tests.process import ServiceProcess, demo_toml
from tests.trainers.policy import byte_tokenizer, tiny_policy
from tests.trainers.trl_runs import BATCH, GENERATIONS, QUESTIONS, SIZES, dataset, grpo, rloo, samples

TERMS = ("helpful", "harmless")
STEPS = 20
MORE = f"""
[[models]]
name = "strict"
source = "{FOLDER}/models/helpful"
dtype = "float32"
parity = "self"
on_unfinished = "error"
[[objectives]]
name = "finished"
aggregate = "mean"
[[objectives.terms]]
model = "strict"
transform = "identity"
[[objectives]]
name = "helpful-alone"
aggregate = "mean"
[[objectives.terms]]
model = "helpful"
transform = "identity"
"""


@pytest.fixture(scope="module")
def live_service(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ServiceProcess]:
    """A service of this module's own, whose metrics nobody else moves, with more objectives."""
    config = demo_toml(tmp_path_factory.mktemp("service"))
    config.write_text(config.read_text() + MORE)
    with ServiceProcess(config) as process:
        yield process


@pytest.mark.parametrize("is_conversational", [True, False], ids=["conversational", "plain"])
def test_grpo_logs_each_term_and_the_service_scores_whole_groups_at_once(
    service_url: str, tmp_path: Path, capfd: pytest.CaptureFixture[str], *, is_conversational: bool
) -> None:
    before = {term: samples(service_url, term) for term in TERMS}
    log = grpo(
        reward_func(objective="both", log_every_s=300),  # a busy machine is no warning here
        tmp_path,
        steps=STEPS,
        is_conversational=is_conversational,
        seed=int(is_conversational),  # else all scores of the second run would come from the cache
    )
    after = {term: samples(service_url, term) for term in TERMS}

    assert [entry["step"] for entry in log] == list(range(1, STEPS + 1))
    for entry in log:
        of_terms = [entry[f"both/{term}/transformed"] for term in TERMS]
        assert entry["rewards/both/mean"] == entry["reward"] == pytest.approx(sum(of_terms), abs=1e-5)
        assert all(entry[f"both/{term}/raw"] > entry[f"both/{term}/transformed"] for term in TERMS)
        assert entry["both/missing"] == 0
    assert len({entry["both/helpful/raw"] for entry in log}) == STEPS
    for term in TERMS:
        added = Counter({name: value - before[term][name] for name, value in after[term].items()})
        assert added["batch_items_count"] == added["batch_items_bucket[8]"] == STEPS, "one batch for each step"
        assert added["batch_items_sum"] + added["cached_scores_total"] == STEPS * BATCH, "of two whole groups"
        assert added["computed_tokens_total"] < 0.7 * added["batch_tokens_sum"], "prompts are computed once for a group"
    assert capfd.readouterr().err == ""


def test_several_objectives_and_the_terms_of_one_are_functions_of_their_own(service_url: str, tmp_path: Path) -> None:
    before = samples(service_url, "both")["conversations_total"]
    both = reward_functions(["both", "helpful-alone"])
    terms = term_functions(TERMS, objective="both")
    log = grpo(
        [*both, *terms], tmp_path, steps=2, multi_objective_aggregation="normalize_then_sum", log_completions=True
    )
    for entry in log:
        of_terms = [entry[f"rewards/{term}/mean"] for term in TERMS]
        assert entry["rewards/both/mean"] == pytest.approx(sum(of_terms), abs=1e-5)
        assert entry["rewards/helpful-alone/mean"] == pytest.approx(entry["both/helpful/raw"], abs=1e-5)
    table = read_table(tmp_path / "completions" / "completions_00002.parquet").to_pydict()
    for term in TERMS:
        assert table[term] == pytest.approx(table[f"both/{term}/transformed"], abs=1e-5)
    scored = samples(service_url, "both")["conversations_total"] - before
    assert scored == 2 * len(log) * BATCH, "one request for the objective, and one for its two terms"


def test_a_completion_that_was_cut_has_no_reward_where_the_model_refuses_it(service_url: str, tmp_path: Path) -> None:
    eos = byte_tokenizer().eos_token_id
    finished = reward_func(objective="finished", eos_token_id=eos, on_failure="none")
    log = grpo(finished, tmp_path, steps=3, max_completion_length=100)
    for entry in log:
        assert entry["finished/missing"] == entry["completions/clipped_ratio"]
    assert {0.0, 1.0}.isdisjoint({entry["finished/missing"] for entry in log}), "some end and some are cut"
    assert all(entry["reward"] == pytest.approx(entry["finished/strict/raw"], abs=1e-5) for entry in log)


def test_rloo_takes_the_same_function(service_url: str, tmp_path: Path) -> None:
    (first, *_) = rloo(reward_func(objective="both"), tmp_path, steps=2)
    of_terms = [first[f"both/{term}/transformed"] for term in TERMS]
    assert first["rewards/both/mean"] == pytest.approx(sum(of_terms), abs=1e-5)


def test_online_dpo_takes_the_function_that_is_not_async(
    service_url: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.online_dpo import OnlineDPOConfig, OnlineDPOTrainer

    tokenizer = byte_tokenizer()
    ends = [tokenizer.eos_token_id, tokenizer.pad_token_id]
    sizes = {name: value for name, value in SIZES.items() if name not in ("num_generations", "max_completion_length")}
    trainer = OnlineDPOTrainer(
        model=tiny_policy(tokenizer),
        ref_model=tiny_policy(tokenizer),
        reward_funcs=sync_reward_func(objective="both", eos_token_id=ends),
        args=OnlineDPOConfig(output_dir=str(tmp_path), max_steps=2, max_new_tokens=16, **sizes),
        train_dataset=dataset(is_conversational=True),
        processing_class=tokenizer,
    )
    trainer.train()
    scores = [entry["objective/scores"] for entry in trainer.state.log_history if "objective/scores" in entry]
    assert len(scores) == 2
    assert all(score < 0 for score in scores)


def test_async_grpo_scores_a_group_with_a_function_that_was_pickled(
    service_url: str, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TRL_EXPERIMENTAL_SILENCE", "1")
    from trl.experimental.async_grpo.async_rollout_worker import RolloutGroup, TrainingSequence, _AsyncRolloutLoop

    answers = [f"It is {metres} metres tall." for metres in range(GENERATIONS)]
    prompt = [{"role": "user", "content": QUESTIONS[0]}]
    group = RolloutGroup(
        prompts=[prompt] * GENERATIONS,
        reward_kwargs={"ground_truth": ["5.5 m"] * GENERATIONS},
        completions=[[{"role": "assistant", "content": answer}] for answer in answers],
        completions_ids=[[1, 2]] * GENERATIONS,
        completions_sequences=[[TrainingSequence([1, 2], [0, 1], [0.0, -1.0], "r")]] * GENERATIONS,
        tool_call_counts=[0] * GENERATIONS,
        tool_failure_counts=[0] * GENERATIONS,
        model_version=0,
        group_id=0,
        env_rewards=[None] * GENERATIONS,
        rollout_rewards=[None] * GENERATIONS,
    )
    functions = pickle.loads(pickle.dumps([reward_func(objective="both"), *term_functions(TERMS, objective="both")]))
    loop: Any = SimpleNamespace(
        reward_funcs=functions,
        reward_func_names=[function.__name__ for function in functions],
        _env_reward_types=[],
        _provides_rollout_reward=False,
    )
    rows = asyncio.run(_AsyncRolloutLoop._score_group(loop, group))
    expected = client.score([{"prompt": prompt, "response": answer} for answer in answers], "both").rewards
    assert [row.metrics["rewards/both"] for row in rows] == pytest.approx(expected, abs=1e-5)
    for row in rows:
        of_terms = [row.metrics[f"rewards/{term}"] for term in TERMS]
        assert row.metrics["rewards/both"] == pytest.approx(sum(of_terms), abs=1e-5)
