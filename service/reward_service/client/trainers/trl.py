"""Reward functions for TRL.

    from reward_service.client.trainers.trl import reward_func

    trainer = GRPOTrainer(model, reward_funcs=reward_func("http://127.0.0.1:8000", "helpful-and-harmless"), ...)

`reward_func` is for GRPO, RLOO and AsyncGRPO, `sync_reward_func` for OnlineDPO, which awaits nothing.
"""

from collections.abc import Callable, Collection, Sequence
from functools import partial
from numbers import Integral
from typing import Any, Self, TypedDict, Unpack, cast

from reward_service.client.settings import Options
from reward_service.client.trainers.connecting import Urls, connect, refuse_none, refuse_number
from reward_service.client.trainers.rendered import Input, check_input
from reward_service.client.trainers.rollouts import Turns, numbers, requiring, term_scores
from reward_service.client.trainers.trl_batches import Batches, SharedBatches

Rewards = list[float | None]


class Reading(Options, TypedDict, total=False):
    """How batches are read, and the options of `Client`."""

    eos_token_id: int | Collection[int] | None
    """A completion whose last token is none of these was cut at the length limit: `finish_reason` is `length`."""
    input: Input
    """What a plain prompt is. messages: the user's words; reparse, raw: text that a chat template wrote."""


class RewardFunction(partial[Any]):
    """A function that TRL finds to be async if it is, and calls by its own name; may be pickled.

    TRL looks at the function inside a partial. The one inside this is made anew where a pickle arrives.
    """

    __name__: str
    _parts: tuple[Any, ...]

    def __new__(cls, name: str, form: Callable[..., Callable[..., Any]], *parts: Any) -> Self:
        """What `form` makes of the parts, under this name."""
        function = form(*parts)
        function.__name__ = name
        made = super().__new__(cls, function)
        made.__name__ = name
        made._parts = name, form, *parts
        return made

    def expectation(self) -> dict[str, Any] | None:
        """What a pinned run is held to: give it as `expect` when the run is resumed. None before the first answer."""
        batches: Batches | SharedBatches = self._parts[2]
        return batches.connection.expectation()

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), self._parts


def reward_func(
    url: Urls | None = None, objective: str | None = None, *, name: str | None = None, **options: Unpack[Reading]
) -> RewardFunction:
    """An async function from prompts and completions to the rewards of an objective, for one run.

    What is not given comes from the environment, as `connect` says. `name` is how TRL logs it, else the objective's;
    the numbers of each term are logged beside it. `Reading` describes the options.
    """
    batches = _batches(url, objective, name, options)
    return RewardFunction(batches.name, _awaited, batches)


def sync_reward_func(
    url: Urls | None = None, objective: str | None = None, *, name: str | None = None, **options: Unpack[Reading]
) -> RewardFunction:
    """As `reward_func`, for trainers that do not await.

    ValueError for `on_failure="none"`: OnlineDPO makes a reward of 0 of it.
    """
    refuse_none(options, "OnlineDPO counts None as a reward of 0")
    batches = _batches(url, objective, name, options)
    return RewardFunction(batches.name, _called, batches)


def reward_functions(
    objectives: Sequence[str], url: Urls | None = None, **options: Unpack[Reading]
) -> list[RewardFunction]:
    """A function for each objective; TRL asks for them at once, weighs each and logs each.

    ValueError for `on_failure="none"`: where one of them is None, TRL's sum has a 0 in its place.
    """
    refuse_none(options, "in a sum of several rewards TRL counts None as 0")
    return [reward_func(url, objective, **options) for objective in objectives]


def term_functions(
    terms: Sequence[str], url: Urls | None = None, objective: str | None = None, **options: Unpack[Reading]
) -> list[RewardFunction]:
    """A function for each term of an objective, its transformed score, over one request for all of them.

    For a trainer that normalises each by itself: `multi_objective_aggregation="normalize_then_sum"`. A conversation
    that lacks one of them has none. ValueError for a number as `on_failure`.
    """
    refuse_number(options)
    is_strict = options.get("on_failure", "raise") == "raise"
    shared = SharedBatches(_batches(url, objective, None, options))
    return [RewardFunction(term, _term, shared, term, tuple(terms), is_strict) for term in terms]


def _batches(url: Urls | None, objective: str | None, name: str | None, options: Reading) -> Batches:
    ends, how = options.pop("eos_token_id", None), check_input(options.pop("input", "messages"))
    connection = connect(url, objective, **cast(Options, options)).anew()
    ids = tuple(ends or ()) if isinstance(ends, Collection | None) else (ends,)
    if not all(isinstance(one, Integral) for one in ids):
        raise ValueError(f"eos_token_id: {ends!r}; valid: the id of a token, or several")
    return Batches(connection, name or connection.objective or "reward_service", ids, how)


def _awaited(batches: Batches) -> Callable[..., Any]:
    async def reward(prompts: Sequence[Turns], completions: Sequence[Turns], **columns: Any) -> Rewards:
        return (await batches.score_async(prompts, completions, columns)).rewards

    return reward


def _called(batches: Batches) -> Callable[..., Any]:
    def reward(prompts: Sequence[Turns], completions: Sequence[Turns], **columns: Any) -> Rewards:
        return batches.score(prompts, completions, columns).rewards

    return reward


def _term(batches: SharedBatches, name: str, beside: Collection[str], is_strict: bool) -> Callable[..., Any]:
    async def reward(prompts: Sequence[Turns], completions: Sequence[Turns], **columns: Any) -> Rewards:
        answer = requiring(await batches.score_async(prompts, completions, columns), beside)
        if is_strict:
            numbers(answer)
        return term_scores(answer, name)

    return reward
