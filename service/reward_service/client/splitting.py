"""Large calls in parts, never inside a group."""

from collections.abc import Mapping, Sequence, Sized
from itertools import groupby

from reward_service.client.calls import Json

Part = list[int]
"""Conversations of one request, by their index in the call."""


def parts(conversations: Sequence[Json], among: Part, most: int) -> list[Part]:
    """These conversations in few parts of at most `most` each and of about equal size; a larger group is its own part.

    Conversations of one `group` always stay together, and neighbours with one prompt where they fit, since they share
    its computation. Reference responses count as conversations, as they do at the service.
    """
    weights = {i: _weight(conversations[i]) for i in among}
    total = sum(weights.values())
    if total <= most:
        return [among]
    units = [piece for unit in _units(conversations, among) for piece in _fitting(conversations, unit, weights, most)]
    count = len(_filled(units, weights, most))
    largest = max(_total(unit, weights) for unit in units)
    even = min(most, -(-total // count) + largest)
    return [sorted(part) for part in _filled(units, weights, even)]


def smaller(conversations: Sequence[Json], part: Part) -> list[Part] | None:
    """A part in about two, or None when it is a single conversation or group."""
    half = sum(_weight(conversations[i]) for i in part) // 2
    found = parts(conversations, part, max(1, half))
    return found if len(found) > 1 else None


def _units(conversations: Sequence[Json], among: Part) -> list[Part]:
    """Groups, and runs of neighbours with one prompt, in the order of the first conversation of each."""
    grouped: dict[str, Part] = {}
    loose: Part = []
    for i in among:
        group = _get(conversations[i], "group")
        (grouped.setdefault(group, []) if isinstance(group, str) else loose).append(i)
    runs = [list(run) for _, run in groupby(loose, key=lambda i: _prompt(conversations[i], i))]
    return sorted([*grouped.values(), *runs])


def _fitting(conversations: Sequence[Json], unit: Part, weights: Mapping[int, int], most: int) -> list[Part]:
    """A unit, in pieces if it is too large and no group."""
    if isinstance(_get(conversations[unit[0]], "group"), str):
        return [unit]
    return _filled([[i] for i in unit], weights, most)


def _filled(units: Sequence[Part], weights: Mapping[int, int], most: int) -> list[Part]:
    """The units one after the other in parts of at most `most`."""
    found: list[Part] = [[]]
    room = most
    for unit in units:
        weight = _total(unit, weights)
        if found[-1] and weight > room:
            found.append([])
            room = most
        found[-1].extend(unit)
        room -= weight
    return found


def _total(unit: Part, weights: Mapping[int, int]) -> int:
    return sum(weights[i] for i in unit)


def _weight(conversation: Json) -> int:
    """What the service counts: the conversation and the reference responses that it brings."""
    references = _get(conversation, "references")
    given = references.values() if isinstance(references, Mapping) else ()
    responses = [_get(one, "responses") for one in given]
    return 1 + sum(len(one) for one in responses if isinstance(one, Sized))


def _prompt(conversation: Json, index: int) -> object:
    """Equal for conversations with one prompt; of a rendered text none is known."""
    messages = _get(conversation, "messages")
    if isinstance(messages, list | tuple):
        return repr(messages[:-1])
    prompt = _get(conversation, "prompt")
    return index if prompt is None else repr(prompt)


def _get(value: object, key: str) -> object | None:
    return value.get(key) if isinstance(value, Mapping) else None
