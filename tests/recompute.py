"""Recomputes every transformed and aggregated number of a /v1/score answer from the answer alone.

Imports nothing of the service: the formulas stand here a second time, in mpmath. Run as a script it reads an answer
(JSON, asked for with `?references=true`) from standard input and prints the largest relative difference.
"""

import itertools
import json
import math
import sys
from typing import Any

from mpmath import mp, mpf

mp.dps = 60
Json = dict[str, Any]


def sigmoid(x: mpf) -> mpf:
    return 1 / (1 + mp.exp(-x))


def mean(numbers: list[mpf]) -> mpf:
    return mp.fsum(numbers) / len(numbers)


def margin(term: Json) -> mpf:
    return (mpf(term["raw"]) - mpf(term["baseline"])) / mpf(term["temperature"])


def references(term: Json) -> list[mpf]:
    return [mpf(reward) / mpf(term["temperature"]) for reward in term["reference"]["rewards"]]


def rank(r: mpf, rows: list[mpf]) -> mpf:
    below = sum(row < r for row in rows)
    ties = sum(row == r for row in rows)
    return (below + mpf(ties) / 2 + mpf("0.5")) / (len(rows) + 1)


def probability_or_number(name: str, term: Json) -> mpf:
    """The number of a transform on the real line, or the probability behind it."""
    r = mpf(term["raw"]) / mpf(term["temperature"])
    match name:
        case "identity":
            return r
        case "centered":
            return margin(term)
        case "log_sigmoid_centered" | "sigmoid_centered":
            return sigmoid(margin(term))
        case "log_sigmoid":
            return sigmoid(r)
        case "par":
            return mean([sigmoid(r - row) for row in references(term)])
        case "win_rate" | "log_win_rate":
            return rank(r, references(term))
        case "standardize":
            rows = references(term)
            centre = mean(rows)
            std = mp.sqrt(mp.fsum((row - centre) ** 2 for row in rows) / (len(rows) - 1))
            return (r - centre) / std
    raise ValueError(name)


REAL = {"identity", "centered", "standardize"}
LOG = {"log_sigmoid_centered", "log_sigmoid", "log_win_rate"}


def transformed(recipe: Json, term: Json) -> mpf:
    name, number = recipe["transform"], probability_or_number(recipe["transform"], term)
    if recipe["negate"]:
        number = -number if name in REAL else 1 - number
    number = mp.log(number) if name in LOG else number
    if recipe["clip"]:
        low, high = recipe["clip"]
        number = min(max(number, mpf(low)), mpf(high))
    return number


def aggregated(recipe: Json, numbers: list[mpf]) -> mpf:
    pairs = [(mpf(t["weight"]), x) for t, x in zip(recipe["terms"], numbers, strict=True) if t["weight"] > 0]
    weights, terms = [w for w, _ in pairs], [x for _, x in pairs]
    match recipe["aggregate"]:
        case "and" | "weighted_sum":
            return mp.fsum(w * x for w, x in pairs)
        case "mean":
            return mp.fsum(w * x for w, x in pairs) / mp.fsum(weights)
        case "min":
            return min(terms)
        case "median":
            ordered, half = sorted(terms), len(terms) // 2
            return ordered[half] if len(terms) % 2 else (ordered[half - 1] + ordered[half]) / 2
        case "geometric":
            return mp.fprod(x**w for w, x in pairs)
        case "or":
            return mp.log(1 - mp.fprod(1 - mp.exp(x) for x in terms))
        case "k_of_n":
            return mp.log(at_least(recipe["k"], [mp.exp(x) for x in terms]))
    raise ValueError(recipe["aggregate"])


def at_least(k: int, probabilities: list[mpf]) -> mpf:
    """P(at least k hold), by listing every case."""
    cases = itertools.product((False, True), repeat=len(probabilities))
    return mp.fsum(
        mp.fprod(p if holds else 1 - p for holds, p in zip(case, probabilities, strict=True))
        for case in cases
        if sum(case) >= k
    )


def difference(ours: float, theirs: mpf) -> float:
    """Relative difference; equal zeros differ by 0."""
    return 0.0 if ours == float(theirs) else float(abs(mpf(ours) - theirs) / max(abs(theirs), mpf(10) ** -300))


def largest_difference(answer: Json) -> float:
    worst = 0.0
    for score in answer["scores"]:
        numbers = []
        for recipe, term in zip(answer["recipe"]["terms"], score["terms"], strict=True):
            numbers.append(transformed(recipe, term))
            worst = max(worst, difference(term["transformed"], numbers[-1]))
        worst = max(worst, difference(score["reward"], aggregated(answer["recipe"], numbers)))
    return worst if math.isfinite(worst) else math.inf


if __name__ == "__main__":
    print(largest_difference(json.load(sys.stdin)))
