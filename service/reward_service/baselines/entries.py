"""What a caller writes for a prompt, turned into rows: draws are named, shapes are checked."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from reward_service.baselines.rows import DRAW_BYTES, UNKNOWN, Draws, Floats, Ints, Rows, bottom, draw_hashes
from reward_service.errors import InvalidRequest

Numbers = Sequence[float] | Sequence[Sequence[float]] | Floats
Number = TypeVar("Number", np.float64, np.int32)


@dataclass(frozen=True, slots=True)
class Entry:
    """Rewards of m references of one prompt, and what is known of each.

    `prompt` is a `prompt_key`; `rewards` and `std` are m numbers for a model with one label, else m lists of one number
    per label. `draw_ids` name the draws when the writer knows better than the idempotency key and a counter.
    `responses` are the texts behind rewards that were computed here: what was sent, in place of the rewards, since
    computing them again may give other last bits.
    """

    prompt: str
    rewards: Numbers
    std: Numbers | None = None
    tokens: Sequence[int] | None = None
    characters: Sequence[int] | None = None
    draw_ids: Sequence[str] | None = None
    responses: Sequence[str] | None = None


@dataclass(frozen=True, slots=True)
class Sent:
    """What was sent for one prompt: the rows to write, and the sorted hashes of all draws with what each came as."""

    rows: Rows
    content: bytes


@dataclass(slots=True)
class Parts:
    """What the entries of one prompt have brought so far."""

    count: int = 0
    rows: list[Rows] = field(default_factory=list)
    contents: list[bytes] = field(default_factory=list)

    def add(self, rows: Rows, contents: Iterable[bytes]) -> None:
        """Take the rows of an entry, and what each came as."""
        self.count += len(rows)
        self.rows.append(rows)
        self.contents += (
            hashlib.blake2b(draw.tobytes() + content, digest_size=DRAW_BYTES).digest()
            for draw, content in zip(rows.draws, contents, strict=True)
        )

    def sent(self) -> Sent:
        """All of it, whatever its order and its split into entries."""
        return Sent(bottom(self.rows), b"".join(sorted(self.contents)))


def sent_by_prompt(entries: Iterable[Entry], labels: int, draw_source: str) -> dict[str, Sent]:
    """What was sent for every prompt; entries of one prompt are joined.

    The draw id of a row is its own, or `<draw_source>:<index>` with the index counted per prompt.
    """
    parts: dict[str, Parts] = {}
    for position, entry in enumerate(entries):
        of_prompt = parts.setdefault(entry.prompt, Parts())
        rows = entry_rows(entry, labels, f"entries[{position}]", draw_source, of_prompt.count)
        of_prompt.add(rows, contents(entry, rows))
    return {prompt: of_prompt.sent() for prompt, of_prompt in parts.items()}


def contents(entry: Entry, rows: Rows) -> list[bytes]:
    """What each reward of the entry came as: its response, else its numbers."""
    if entry.responses is None:
        return [outputs.tobytes() for outputs in rows.outputs]
    return [response.encode("utf-8", "surrogatepass") for response in entry.responses]


def entry_rows(entry: Entry, labels: int, where: str, draw_source: str, start: int) -> Rows:
    """All rows of one entry, in its order and not yet cut to what a prompt keeps."""
    rewards = matrix(entry.rewards, labels, f"{where}: rewards")
    count = len(rewards)
    if count == 0:
        raise InvalidRequest(f"{where}: rewards is empty; an entry needs at least one")
    if not np.isfinite(rewards).all():
        raise InvalidRequest(f"{where}: rewards must be finite numbers")
    return Rows(
        draws=draws(entry, where, draw_source, start, count),
        outputs=rewards,
        std=deviations(entry.std, rewards, f"{where}: std"),
        tokens=lengths(entry.tokens, count, f"{where}: tokens"),
        characters=lengths(entry.characters, count, f"{where}: characters"),
    )


def matrix(numbers: Numbers, labels: int, where: str) -> Floats:
    """(m, labels) from m numbers or m lists; InvalidRequest when the shape is another."""
    array = numeric(numbers, np.float64, where)
    if array.ndim == 1 and (labels == 1 or array.size == 0):
        array = array.reshape(-1, labels)
    if array.ndim != 2 or array.shape[1] != labels:
        form = "a number" if labels == 1 else f"a list of {labels} numbers, one per label"
        raise InvalidRequest(f"{where}: the model has {labels} output(s), so each must be {form}")
    return array


def deviations(std: Numbers | None, rewards: Floats, where: str) -> Floats:
    """(m, labels) standard deviations, NaN where there is none."""
    if std is None:
        return np.full(rewards.shape, np.nan)
    array = matrix(std, rewards.shape[1], where)
    if len(array) != len(rewards):
        raise InvalidRequest(f"{where} has {len(array)} numbers for {len(rewards)} rewards")
    if (array < 0).any() or np.isinf(array).any():
        raise InvalidRequest(f"{where}: a standard deviation is finite and not negative")
    return array


def lengths(numbers: Sequence[int] | None, count: int, where: str) -> Ints:
    """(m,) lengths of the responses, -1 where unknown."""
    if numbers is None:
        return np.full(count, UNKNOWN, np.int32)
    array = numeric(numbers, np.int32, where)
    if array.shape != (count,):
        raise InvalidRequest(f"{where} has {len(numbers)} numbers for {count} rewards")
    if (array < UNKNOWN).any():
        raise InvalidRequest(f"{where}: a length is not negative")
    return array


def draws(entry: Entry, where: str, draw_source: str, start: int, count: int) -> Draws:
    """(m, 16) hashes of the entry's own draw ids, else of the counted ones."""
    ids = entry.draw_ids
    if ids is None:
        return draw_hashes(f"{draw_source}:{index}" for index in range(start, start + count))
    if len(ids) != count:
        raise InvalidRequest(f"{where}: {len(ids)} draw_ids for {count} rewards")
    if len(set(ids)) != count:
        raise InvalidRequest(f"{where}: a draw id stands there twice; each response is a draw of its own")
    return draw_hashes(ids)


def numeric(numbers: Any, dtype: type[Number], where: str) -> NDArray[Number]:
    """The numbers as an array of its own; InvalidRequest when they are ragged, no numbers or too large."""
    try:
        return np.array(numbers, dtype)
    except (TypeError, ValueError, OverflowError) as error:
        raise InvalidRequest(f"{where}: not a list of numbers, or lists of unequal length") from error
