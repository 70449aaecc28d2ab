"""TRL's batches: prompts and completions as conversations, and the number of each term into the trainer's log."""

import asyncio
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from reward_service.client.calls import Json
from reward_service.client.trainers.connecting import Connection
from reward_service.client.trainers.rendered import Input
from reward_service.client.trainers.rollouts import Turns, conversation, message, term_numbers
from reward_service.errors import ReparseFailed
from reward_service.reparsing import answered
from reward_service.schemas import ScoreAnswer

COLUMNS = ("finish_reason", "ground_truth", "metadata", "references", "tools")
"""Columns of the dataset that a conversation has too, under the same name."""


@dataclass(eq=False, slots=True)
class Batches:
    """Scores batches and tells the trainer the mean of each term; `name` stands before whatever it logs.

    `ends` are the ids of the tokens that end a completion. `input` is how a plain prompt is read.
    """

    connection: Connection
    name: str
    ends: Collection[int]
    input: Input
    _logged: list[str] = field(default_factory=list)

    def score(self, prompts: Sequence[Turns], completions: Sequence[Turns], columns: Json) -> ScoreAnswer:
        """The answer for a batch; `columns` is what else TRL hands over."""
        answer = self.connection.score(self._conversations(prompts, completions, columns))
        self._log(answer, columns)
        return answer

    async def score_async(self, prompts: Sequence[Turns], completions: Sequence[Turns], columns: Json) -> ScoreAnswer:
        """As `score`, awaited."""
        answer = await self.connection.score_async(self._conversations(prompts, completions, columns))
        self._log(answer, columns)
        return answer

    def _conversations(self, prompts: Sequence[Turns], completions: Sequence[Turns], columns: Json) -> list[Json]:
        """One for each completion; those of one prompt are a group."""
        groups: dict[str, str] = {}
        fields = {name: columns[name] for name in COLUMNS if columns.get(name) is not None}
        if self.ends and columns.get("completion_ids") is not None:
            fields.setdefault("finish_reason", [self._finish_reason(ids) for ids in columns["completion_ids"]])
        return [
            _conversation(
                prompt,
                completion,
                self.input,
                group=groups.setdefault(repr(prompt), str(len(groups))),
                **{name: values[i] for name, values in fields.items()},
            )
            for i, (prompt, completion) in enumerate(zip(prompts, completions, strict=True))
        ]

    def _finish_reason(self, ids: Sequence[int]) -> str:
        return "stop" if len(ids) and ids[-1] in self.ends else "length"

    def _log(self, answer: ScoreAnswer, columns: Json) -> None:
        """Columns are the same at each step, as TRL's table needs them: also for an answer that knows no terms."""
        numbers = term_numbers(answer)
        self._logged = list(numbers) or self._logged
        log_metric, log_extra = columns.get("log_metric"), columns.get("log_extra")
        if log_metric:
            log_metric(f"{self.name}/missing", fmean(score.error is not None for score in answer.scores))
        for name in self._logged:
            values = numbers.get(name) or [None] * len(answer.scores)
            known = [value for value in values if value is not None]
            if log_extra:
                log_extra(f"{self.name}/{name}", values)
            if log_metric and known:
                log_metric(f"{self.name}/{name}", fmean(known))


class SharedBatches:
    """One answer for the functions that are called with the same batch at the same time."""

    def __init__(self, batches: Batches) -> None:
        self.connection = batches.connection
        self._batches = batches
        self._under_way: dict[int, asyncio.Task[ScoreAnswer]] = {}

    async def score_async(self, prompts: Sequence[Turns], completions: Sequence[Turns], columns: Json) -> ScoreAnswer:
        """The answer for a batch, which is known by its list of completions."""
        batch = id(completions)
        task = self._under_way.get(batch)
        if task is None:
            task = asyncio.create_task(self._batches.score_async(prompts, completions, columns))
            self._under_way[batch] = task
            task.add_done_callback(lambda _: self._under_way.pop(batch))
        return await task

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._batches,)


def _conversation(prompt: Turns, completion: Turns, how: Input, **fields: Any) -> Json:
    if not isinstance(prompt, str) or not isinstance(completion, str):
        return conversation(_turns(prompt), _turns(completion), **fields)
    if how == "raw":
        return {"text": prompt + completion, **{name: value for name, value in fields.items() if value is not None}}
    if how == "reparse":
        return conversation(answered(prompt, prompt).messages[:-1], completion, **fields)
    _check_is_plain(prompt)
    return conversation(prompt, completion, **fields)


def _check_is_plain(prompt: str) -> None:
    """ValueError for a prompt that is the text of a template: as one user message it would get another number."""
    try:
        template = answered(prompt, prompt).template
    except ReparseFailed:
        return
    if template is not None:
        raise ValueError(
            f"prompts: {prompt[:60]!r}... is rendered already, by a {template} template; valid: prompts that are "
            "messages or plain text, or the argument input='reparse' (or 'raw')"
        )


def _turns(turns: Turns) -> Turns:
    return turns if isinstance(turns, str) else [message(one) for one in turns]
