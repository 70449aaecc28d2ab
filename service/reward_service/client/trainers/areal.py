"""AReaL: a reward function for its workflows, in the file that starts the training.

    from reward_service.client.trainers.areal import reward_fn

    RLVRWorkflow(reward_fn=reward_fn, ...)

With arguments instead of the environment: `RewardFn(url="http://host:port", objective="...")`. AReaL gives a call 15 s,
the time in the queue of its process pool included, and makes 0 of the fourth call that is late. Therefore a call ends
before, and while the service does not answer the calls behind it end at once: an exception is never made a number.
"""

import time
from collections.abc import Sequence
from copy import copy
from typing import Any

from reward_service.client.errors import ScoringFailed, Unavailable
from reward_service.client.retrying import ENGINE_TRIES, may_succeed
from reward_service.client.trainers.connecting import Connection, connect
from reward_service.client.trainers.rendered import Input, check_input, of_parts
from reward_service.client.trainers.rollouts import message, numbers, plain
from reward_service.schemas import ScoreAnswer

DEADLINE_S = 10.0
REST_S = 30.0
"""How long calls end at once after one that had no answer: longer than any that AReaL still has in its queue waits."""
_lost: dict[Connection, tuple[float, Unavailable | ScoringFailed]] = {}
"""When a call of this process was lost after all its time, and how."""


class RewardFn:
    """`reward_fn(prompt, completions, prompt_ids, completion_ids, **data)` with arguments of its own; may be pickled.

    The arguments are those of `connect`, and `input`: how the texts are read when `data` has no `messages`.
    """

    def __init__(self, *, input: Input = "reparse", **options: Any) -> None:  # noqa: A002
        if options.get("on_failure", "raise") != "raise":
            raise ValueError(
                f"on_failure: {options['on_failure']!r}, but in an outage AReaL would make it 0; valid: 'raise'"
            )
        self._input = check_input(input)
        self._options = {"deadline_s": DEADLINE_S, **options}

    def __call__(
        self,
        prompt: str,
        completions: str,
        *_: Sequence[int],
        messages: Sequence[Any] | None = None,
        answer: Any = None,
        **_columns: Any,
    ) -> float:
        """The reward of one response; `messages` of the data set are the prompt, else the decoded `prompt` is."""
        turns = prompt if messages is None else [message(one) for one in messages]
        asked = of_parts(turns, completions, self._input, ground_truth=plain(answer))
        return numbers(_scored(connect(**self._options), asked))[0]


def _scored(connection: Connection, asked: dict[str, Any]) -> ScoreAnswer:
    at, error = _lost.get(connection, (0.0, None))
    if error is not None and time.monotonic() - at < REST_S:
        raise copy(error)  # each with a traceback of its own
    try:
        answer = connection.score([asked])
    except (Unavailable, ScoringFailed) as lost:
        if isinstance(lost, Unavailable) or _took_all_its_time(lost):
            _lost[connection] = time.monotonic(), lost
        raise
    _lost.pop(connection, None)
    return answer


def _took_all_its_time(failed: ScoringFailed) -> bool:
    """Whether the error may pass, so that the client tried until its deadline."""
    return any(may_succeed(score, ENGINE_TRIES) for score in failed.failed.values())


reward_fn = RewardFn()
"""With the service, the objective and the key of the environment."""
