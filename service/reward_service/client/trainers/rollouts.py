"""What trainers hand over and want back: rollouts as conversations, and the number of each term beside the reward."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any

from reward_service.client.calls import Json
from reward_service.client.errors import ScoringFailed
from reward_service.schemas import ConversationScore, Message, ScoreAnswer, TermScore

Turns = str | Sequence[Mapping[str, Any]]
"""Plain text, or messages in the OpenAI form."""
NUMBERS = ("raw", "transformed")


def conversation(prompt: Turns, response: Turns, **fields: Any) -> dict[str, Any]:
    """A conversation to score; a field that is None is left out.

    A response of several messages (of an agent, or with tool calls) follows the prompt as it is.
    """
    given: Json = {name: value for name, value in fields.items() if value is not None}
    if isinstance(response, str):
        return {"prompt": prompt if isinstance(prompt, str) else list(prompt), "response": response, **given}
    before = [{"role": "user", "content": prompt}] if isinstance(prompt, str) else prompt
    return {"messages": [*before, *response], **given}


def plain(value: Any) -> Any:
    """A value as JSON can hold it: what NumPy, torch and configuration libraries make of lists, dicts and numbers."""
    if callable(listed := getattr(value, "tolist", None)):
        return plain(listed())
    if isinstance(value, Mapping):
        return {name: plain(one) for name, one in value.items()}
    if isinstance(value, Sequence) and not isinstance(value, str):
        return [plain(one) for one in value]
    return value


def message(turn: Any) -> dict[str, Any]:
    """A trainer's message as the service takes it: its own marks are left out, and a list of texts becomes one text.

    ValueError for content that is not text.
    """
    given = turn.model_dump(exclude_none=True) if hasattr(turn, "model_dump") else turn
    known = {name: plain(given[name]) for name in Message.model_fields if given.get(name) is not None}
    if isinstance(known.get("content"), list):
        known["content"] = "".join(_text(part) for part in known["content"])
    return known


def _text(part: Any) -> str:
    if isinstance(part, dict) and isinstance(part.get("text"), str):
        return str(part["text"])
    raise ValueError(f"messages: content {part!r:.80} is no text; valid: a text, or parts of the type text")


def numbers(answer: ScoreAnswer) -> list[float]:
    """The rewards, where none may be missing; ScoringFailed when one is."""
    found = [reward for reward in answer.rewards if reward is not None]
    if len(found) < len(answer.scores):
        raise ScoringFailed(answer.scores)
    return found


def term_numbers(answer: ScoreAnswer) -> dict[str, list[float | None]]:
    """`<term>/raw` and `<term>/transformed` of each conversation in the order of the call, None where there is none."""
    found: dict[str, list[float | None]] = {}
    for term in answer.recipe.terms:
        by_conversation = [_named(score.terms, term.name) for score in answer.scores]
        for number in NUMBERS:
            found[f"{term.name}/{number}"] = [getattr(one, number, None) for one in by_conversation]
    return found


def requiring(answer: ScoreAnswer, terms: Collection[str]) -> ScoreAnswer:
    """The answer where a conversation that lacks one of these terms has no reward, but the error of that term.

    Terms are rewards of their own here, and trainers make 0 of one that is missing beside others. ValueError for a term
    that the objective has not.
    """
    known = [one.name for one in answer.recipe.terms]
    for term in terms:
        if known and term not in known:
            raise ValueError(f"terms: {term!r} is no term of {answer.objective!r}; valid: {', '.join(known)}")
    return answer.model_copy(update={"scores": [_requiring(score, terms) for score in answer.scores]})


def term_scores(answer: ScoreAnswer, term: str) -> list[float | None]:
    """The transformed score of a term in each conversation; None where the conversation has an error."""
    named = [None if score.error else _named(score.terms, term) for score in answer.scores]
    return [None if one is None else one.transformed for one in named]


def _requiring(score: ConversationScore, terms: Collection[str]) -> ConversationScore:
    error = next((term.error for term in score.terms if term.name in terms and term.error), None)
    return score if score.error or error is None else score.model_copy(update={"reward": None, "error": error})


def _named(terms: Sequence[TermScore], name: str) -> TermScore | None:
    return next((term for term in terms if term.name == name), None)
