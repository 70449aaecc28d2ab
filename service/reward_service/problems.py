"""Validation errors as sentences: the path, the value, what is wrong with it and what would be valid."""

import difflib
from collections.abc import Iterable, Mapping, Sequence
from types import UnionType
from typing import Annotated, Any, Union, get_args, get_origin

from pydantic import BaseModel

Location = tuple[int | str, ...]
LONGEST_VALUE = 80


def nearest(name: str, valid: Iterable[str]) -> str:
    """`; did you mean 'x'? valid: ...` for a name that is none of `valid`."""
    names = sorted(valid)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    hint = f"; did you mean {close[0]!r}?" if close else ""
    return f"{hint or ';'} valid: {', '.join(names) or '(none)'}"


def sentences(errors: Iterable[Mapping[str, Any]], annotation: object, prefix: str = "") -> list[str]:
    """One sentence for each place that pydantic finds wrong in a value of type `annotation`.

    Where a union has several ways to be right, their sentences are joined.
    """
    places: dict[str, list[str]] = {}
    for error in errors:
        path, parents = _walk(error, annotation, prefix)
        places.setdefault(path, []).append(_sentence(error, parents))
    return [f"{path}: {_joined(told)}" if path else _joined(told) for path, told in places.items()]


def shown(value: object) -> str:
    """A value short enough to quote."""
    text = repr(value)
    return text if len(text) <= LONGEST_VALUE else f"{text[: LONGEST_VALUE - 3]}..."


def _joined(told: Sequence[str]) -> str:
    return "; or ".join(dict.fromkeys(told))


def _sentence(error: Mapping[str, Any], parents: Sequence[object]) -> str:
    message = str(error["msg"])
    match error["type"]:
        case "extra_forbidden":
            key = str(error["loc"][-1])
            return f"unknown field {key!r}{nearest(key, _fields(parents))}"
        case "missing":
            return "required, but not given"
        case "value_error":
            return message.removeprefix("Value error, ")
        case "model_type" | "model_attributes_type" | "dict_type":
            return f"{shown(error['input'])} is not valid: expected an object"
        case "finite_number":
            return f"{error['input']!r} is not a finite number"
        case "string_pattern_mismatch":
            return f"{shown(error['input'])} does not match {error['ctx']['pattern']}"
        case "literal_error":
            return f"{shown(error['input'])} is not valid; valid: {error['ctx']['expected']}"
    return f"{shown(error['input'])} is not valid: {message[:1].lower()}{message[1:]}"


def _walk(error: Mapping[str, Any], annotation: object, prefix: str) -> tuple[str, list[object]]:
    """The readable path of an error (union tags left out) and the types that hold its last element."""
    location: Location = tuple(error["loc"])
    names_a_key = error["type"] in ("extra_forbidden", "missing")
    path, here, parents = prefix, _alternatives(annotation), []
    for place, element in enumerate(location, 1):
        parents, following = here, _step(here, element)
        is_key = bool(following) or isinstance(element, int) or (names_a_key and place == len(location))
        if not is_key and annotation is not None:
            continue
        path = f"{path}[{element}]" if isinstance(element, int) else f"{path}.{element}" if path else element
        here = following
    return path, parents


def _step(here: Sequence[object], element: int | str) -> list[object]:
    found: list[object] = []
    for kind in here:
        if isinstance(element, int) and get_origin(kind) in (list, tuple, Sequence):
            found += _alternatives(get_args(kind)[0])
        elif isinstance(element, str) and isinstance(kind, type) and issubclass(kind, BaseModel):
            field = kind.model_fields.get(element)
            found += _alternatives(field.annotation) if field else []
        elif isinstance(element, str) and get_origin(kind) is dict:
            found += _alternatives(get_args(kind)[1])
    return found


def _alternatives(annotation: object) -> list[object]:
    origin = get_origin(annotation)
    if origin is Annotated:
        return _alternatives(get_args(annotation)[0])
    if origin in (Union, UnionType):
        return [one for part in get_args(annotation) for one in _alternatives(part)]
    return [annotation]


def _fields(kinds: Sequence[object]) -> list[str]:
    return [
        name for kind in kinds if isinstance(kind, type) and issubclass(kind, BaseModel) for name in kind.model_fields
    ]
