"""slime and miles: a reward function for one sample, and one for a group.

    --custom-rm-path reward_service.client.trainers.slime.custom_rm
    --custom-rm-path reward_service.client.trainers.slime.group_rm --group-rm

With the numbers of each term: `custom_rm_dict` (`group_rm_dict` for groups) and `--reward-key reward`. The service is
`--rm-url http://host:port`, or comes from the environment of the rollout process, as the objective and the key do.
Rewards relative to the group are made by `reward_service.rewards.groups`; slime itself normalises those of GRPO.
"""

from collections.abc import Sequence
from typing import Any

from reward_service.client.trainers.connecting import connect
from reward_service.client.trainers.rendered import Input, of_parts
from reward_service.client.trainers.rollouts import message, numbers, plain, term_numbers
from reward_service.schemas import ScoreAnswer


async def custom_rm(args: Any, sample: Any, **_: Any) -> float:
    """The reward of a sample."""
    return numbers(await _scored(args, [sample], None))[0]


async def custom_rm_dict(args: Any, sample: Any, **_: Any) -> dict[str, float | None]:
    """The reward of a sample as `reward`, and `<term>/raw` and `<term>/transformed` of each term."""
    return _told(await _scored(args, [sample], None))[0]


async def group_rm(args: Any, samples: Sequence[Any], **_: Any) -> list[float]:
    """The rewards of a group, scored in one request."""
    return numbers(await _scored(args, samples, "group"))


async def group_rm_dict(args: Any, samples: Sequence[Any], **_: Any) -> list[dict[str, float | None]]:
    """As `custom_rm_dict`, for a group."""
    return _told(await _scored(args, samples, "group"))


async def _scored(args: Any, samples: Sequence[Any], group: str | None) -> ScoreAnswer:
    """A prompt is rendered text where slime renders it, and else what the data set has."""
    mode: Input = "reparse" if getattr(args, "apply_chat_template", False) else "messages"
    conversations = [_conversation(sample, mode, group) for sample in samples]
    return await connect(getattr(args, "rm_url", None)).score_async(conversations)


def _conversation(sample: Any, mode: Input, group: str | None) -> dict[str, Any]:
    prompt = sample.prompt if isinstance(sample.prompt, str) else [message(turn) for turn in sample.prompt]
    told = of_parts(prompt, sample.response, mode, ground_truth=plain(sample.label), group=group)
    status = getattr(sample.status, "value", sample.status)
    finish = {"truncated": "length", "completed": "stop"}.get(str(status))
    return {**told, "finish_reason": finish} if finish else told


def _told(answer: ScoreAnswer) -> list[dict[str, float | None]]:
    terms = term_numbers(answer)
    return [
        {"reward": reward, **{name: values[i] for name, values in terms.items()}}
        for i, reward in enumerate(numbers(answer))
    ]
