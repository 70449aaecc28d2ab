"""ms-swift: an asynchronous reward, in a plugin file of your own that is registered by name.

    # plugin.py
    from reward_service.client.trainers.ms_swift import register

    register("helpful_and_harmless")      # arguments: objective, url and the options of `connect`

    --external_plugins plugin.py --reward_funcs helpful_and_harmless

The terms beside it, in the log and not in the sum: `register("helpful", term="helpful")` for each,
`--reward_funcs helpful_and_harmless helpful harmless --reward_weights 1 0 0`.

`on_failure="none"` is refused: ms-swift counts a reward that is None as 0 in its sum.
"""

import asyncio
from collections.abc import Mapping, Sequence
from importlib import import_module
from types import MappingProxyType
from typing import Any

from reward_service.client.trainers.connecting import connect, refuse_none, refuse_number
from reward_service.client.trainers.rollouts import message, numbers, requiring, term_scores


class ServiceReward:
    """A reward as ms-swift's `AsyncORM`: made with its training arguments, awaited with a batch."""

    options: Mapping[str, Any] = MappingProxyType({})
    term: str | None = None

    def __init__(self, args: Any = None, **_: Any) -> None:
        self.args = args

    async def __call__(
        self,
        completions: Sequence[str],
        messages: Sequence[Sequence[dict[str, Any]]],
        finish_reason: Sequence[str | None] | None = None,
        **_: Any,
    ) -> Sequence[float | None]:
        """The rewards of a batch whose `messages` end in the completions; or the transformed scores of one term.

        It runs in a thread: ms-swift begins and ends an event loop for every step, and connections do not outlive one.
        """
        ends = finish_reason or [None] * len(completions)
        conversations = [
            {"messages": [message(one) for one in turns], **({"finish_reason": end} if end else {})}
            for turns, end in zip(messages, ends, strict=True)
        ]
        answer = await asyncio.to_thread(connect(**self.options).score, conversations)
        if self.term is None:
            return numbers(answer)
        required = requiring(answer, [self.term])
        numbers(required)
        return term_scores(required, self.term)


def reward(name: str = "ServiceReward", *, term: str | None = None, **options: Any) -> type[ServiceReward]:
    """The class of a reward, by whose name ms-swift logs it; the other arguments are those of `connect`."""
    refuse_none(options, "ms-swift counts None as 0 in the sum of rewards")
    if term is not None:
        refuse_number(options)
    return type(name, (ServiceReward,), {"options": options, "term": term})


def register(name: str, **options: Any) -> type[ServiceReward]:
    """The class of a reward, under a name for `--reward_funcs`; `orms` of ms-swift holds it."""
    made = reward(name, **options)
    import_module("swift.rewards").orms[name] = made
    return made
