"""verl: a custom reward function, and a reward manager that scores whole conversations.

    reward.custom_reward_function.path=pkg://reward_service.client.trainers.verl
    reward.custom_reward_function.name=compute_score

or, where `extra_info` does not hold the prompt,

    reward.reward_manager.source=importlib
    reward.reward_manager.name=ServiceRewardManager
    reward.reward_manager.module.path=pkg://reward_service.client.trainers.verl
    +reward.reward_kwargs.url=http://host:port

Do not use the reward manager `rate_limited`: it makes 0.0 of every exception.
"""

import math
from collections.abc import Mapping
from importlib import import_module
from typing import Any

from reward_service.client.trainers.connecting import Connection, Urls, connect, refuse_none
from reward_service.client.trainers.rollouts import Turns, conversation, message, numbers, plain, term_numbers
from reward_service.schemas import ScoreAnswer

DEADLINE_S = 240.0
"""Under the 300 s after which a reward manager of verl goes on by itself."""
PROMPT_KEYS = ("raw_prompt", "prompt")
UNUSED = ("reward_router_address", "reward_model_tokenizer")
"""What verl passes on when it hosts a reward model of its own."""


async def compute_score(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: Urls | None = None,
    objective: str | None = None,
    prompt_key: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """The reward of one response as `score`, and `<term>/raw` and `<term>/transformed` of each term.

    verl does not tell a function that a response was cut at the length limit: it is scored as one that ended.
    `reward_kwargs` of verl's configuration give the arguments from `url` on. The prompt is `extra_info[prompt_key]`, or
    what `extra_info` has of `raw_prompt` (where verl 0.9 puts it) and `prompt`. ValueError when there is none.
    """
    asked = _asked(data_source, solution_str, ground_truth, extra_info or {}, prompt_key)
    return _told(await _connected({"url": url, "objective": objective, **options}).score_async([asked]))


def compute_score_sync(
    data_source: str,
    solution_str: str,
    ground_truth: Any = None,
    extra_info: Mapping[str, Any] | None = None,
    *,
    url: Urls | None = None,
    objective: str | None = None,
    prompt_key: str | None = None,
    **options: Any,
) -> dict[str, float]:
    """As `compute_score`, for reward managers that take no async function: `remote`, `verl.workers.reward_manager`."""
    asked = _asked(data_source, solution_str, ground_truth, extra_info or {}, prompt_key)
    return _told(_connected({"url": url, "objective": objective, **options}).score([asked]))


class ServiceRewardManager:
    """Scores the messages that verl made the prompt of, and the decoded response.

    `reward.reward_kwargs` of the configuration are the arguments of `connect`.
    """

    def __init__(self, config: Any, tokenizer: Any, *_: Any, **_unused: Any) -> None:
        self._tokenizer = tokenizer
        self._most_tokens = config.actor_rollout_ref.rollout.response_length
        self._connection = _connected(dict(config.reward.get("reward_kwargs") or {}))

    async def run_single(self, data: Any) -> dict[str, Any]:
        """The reward of the last sequence of a DataProto, as verl's own managers answer."""
        item = data[len(data) - 1]
        row = item.non_tensor_batch
        ids = item.batch["responses"]
        written = ids[: int(item.batch["attention_mask"][-ids.shape[-1] :].sum())]
        response = self._tokenizer.decode(written, skip_special_tokens=True)
        truth = (row.get("reward_model") or {}).get("ground_truth")
        asked = _asked(str(row.get("data_source")), response, truth, row, "raw_prompt")
        if self._is_cut(written):
            asked["finish_reason"] = "length"
        told = _told(await self._connection.score_async([asked]))
        return {"reward_score": told["score"], "reward_extra_info": told}

    def _is_cut(self, written: Any) -> bool:
        """Whether a response ran into the length limit: it fills it and has no end."""
        return len(written) >= self._most_tokens and bool(written[-1] != self._tokenizer.eos_token_id)

    @classmethod
    def assemble_rm_scores(cls, data: Any, scores: list[float]) -> Any:
        """The tensor of rewards of a batch, each at the last token of its response; as verl's managers do it."""
        base = import_module("verl.experimental.reward_loop.reward_manager.base").RewardManagerBase
        return base.assemble_rm_scores(data, scores)


def _connected(options: Mapping[str, Any]) -> Connection:
    refuse_none(options, "verl has no place for a sample without a score")
    chosen = {name: value for name, value in options.items() if name not in UNUSED}
    return connect(**{"deadline_s": DEADLINE_S, **chosen})


def _asked(source: str, response: str, truth: Any, known: Mapping[str, Any], prompt_key: str | None) -> dict[str, Any]:
    keys = PROMPT_KEYS if prompt_key is None else (prompt_key,)
    prompt = next((known[key] for key in keys if known.get(key) is not None), None)
    if prompt is None:
        raise ValueError(
            f"extra_info: no prompt under {' or '.join(map(repr, keys))}, it has {sorted(known)}; valid: verl 0.9, "
            "a dataset that has the prompt there (reward_kwargs.prompt_key names the field), or ServiceRewardManager"
        )
    turns: Turns = prompt if isinstance(prompt, str) else [message(turn) for turn in prompt]
    return conversation(turns, response, ground_truth=plain(truth), metadata={"data_source": source})


def _told(answer: ScoreAnswer) -> dict[str, float]:
    """The reward and the terms; NaN for a term that is only watched and has no number: verl makes arrays of them."""
    terms = {name: values[0] for name, values in term_numbers(answer).items()}
    return {"score": numbers(answer)[0], **{name: math.nan if one is None else one for name, one in terms.items()}}
