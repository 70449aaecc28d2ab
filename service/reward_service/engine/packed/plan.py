"""Where the tokens of a batch lie in a pack, and which of them each token sees: NumPy only, made on the host.

A pack is one row of tokens, cut into spans. A span continues another one (its parent), or starts a sequence; what
several items have in common is one span with several children. A span's tokens see the spans that it continues and,
in it, what stands before them; so each item's scores are those of the item alone.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from reward_service.engine.prefixes import SHARE_FROM, Ids, common, order
from reward_service.engine.rendering import Rendered

Ints = NDArray[np.int32]


@dataclass(frozen=True, slots=True)
class Span:
    """A run of tokens in a pack: `start` in the pack, `position` of its first token in its sequences."""

    start: int
    position: int
    length: int
    parent: int


@dataclass(frozen=True, slots=True)
class Blocks:
    """Queries that see the same spans: `rows` rows from `row` on, the first at key `first` of the spans in `read`.

    Block i reads spans `read[offsets[i]:offsets[i + 1]]`, whose keys follow one another in that order.
    """

    row: Ints
    rows: Ints
    first: Ints
    offsets: Ints
    read: Ints


@dataclass(frozen=True, slots=True)
class Plan:
    """A pack of T tokens with n items; `pooled` (n,) are the tokens whose hidden states the head reads."""

    ids: Ints
    positions: Ints
    spans: tuple[Span, ...]
    span_start: Ints
    span_length: Ints
    pooled: Ints
    blocks: Blocks
    pooled_blocks: Blocks
    causal: bool

    @property
    def tokens(self) -> int:
        """Tokens that are computed."""
        return len(self.ids)


def shared_plan(batch: Sequence[Rendered]) -> Plan:
    """A causal pack in which equal beginnings are computed once. Tokens behind an item's pooled one are left out."""
    return _planned(batch, share_from=SHARE_FROM)


def packed_plan(batch: Sequence[Rendered]) -> Plan:
    """A causal pack in which each item stands whole."""
    return _planned(batch, share_from=None)


def encoder_plan(batch: Sequence[Rendered]) -> Plan:
    """A pack for bidirectional models: every token of an item sees the whole item; the first one is pooled."""
    tree = _Tree()
    leaves = [tree.add(one.ids, 0, -1) for one in batch]
    return tree.plan(
        [tree.spans[leaf].start for leaf in leaves], [[leaf] for leaf in leaves], [0] * len(batch), causal=False
    )


def _planned(batch: Sequence[Rendered], share_from: int | None) -> Plan:
    tree, rows = _Tree(), [one.ids[: one.pooled_index + 1] for one in batch]
    leaves = [tree.add(row, 0, -1) for row in rows] if share_from is None else _grow(tree, rows, share_from)
    chains = [tree.chain(leaf) for leaf in leaves]
    last = [tree.spans[leaf].start + tree.spans[leaf].length - 1 for leaf in leaves]
    return tree.plan(last, chains, [len(row) - 1 for row in rows], causal=True)


@dataclass(slots=True)
class _Tree:
    """The spans of a pack while it is made, in the order in which they lie."""

    spans: list[Span] = field(default_factory=list)
    ids: list[Ids] = field(default_factory=list)
    tokens: int = 0

    def add(self, ids: Ids, position: int, parent: int) -> int:
        """Appends a span; its index."""
        self.spans.append(Span(self.tokens, position, len(ids), parent))
        self.ids.append(ids)
        self.tokens += len(ids)
        return len(self.spans) - 1

    def chain(self, span: int) -> list[int]:
        """The span and all that it continues, from the start of the sequence on."""
        chain = []
        while span >= 0:
            chain.append(span)
            span = self.spans[span].parent
        return chain[::-1]

    def plan(self, pooled: list[int], chains: list[list[int]], positions: list[int], *, causal: bool) -> Plan:
        """The pack; `chains` and `positions` say what the pooled token of each item sees and where it stands."""
        spans = self.spans
        return Plan(
            ids=np.concatenate(self.ids),
            positions=np.concatenate([np.arange(s.position, s.position + s.length, dtype=np.int32) for s in spans]),
            spans=tuple(spans),
            span_start=_ints(s.start for s in spans),
            span_length=_ints(s.length for s in spans),
            pooled=_ints(pooled),
            blocks=_blocks(
                [s.start for s in spans],
                [s.length for s in spans],
                [s.position for s in spans],
                [self.chain(i) for i in range(len(spans))],
            ),
            pooled_blocks=_blocks(list(range(len(pooled))), [1] * len(pooled), positions, chains),
            causal=causal,
        )


def _ints(values: object) -> Ints:
    return np.fromiter(values, dtype=np.int32)  # type: ignore[call-overload,no-any-return]


def _blocks(row: list[int], rows: list[int], first: list[int], chains: list[list[int]]) -> Blocks:
    offsets = np.cumsum([0, *(len(chain) for chain in chains)], dtype=np.int32)
    return Blocks(_ints(row), _ints(rows), _ints(first), offsets, _ints(span for chain in chains for span in chain))


def _grow(tree: _Tree, rows: Sequence[Ids], share_from: int) -> list[int]:
    """Adds the rows, equal beginnings once, depth first; the span that each row ends in."""
    places = order(rows)
    equal = [0, *(common(rows[a], rows[b]) for a, b in pairwise(places))]  # with the row before
    leaves = [0] * len(rows)
    todo = [(0, len(rows), 0, -1)]  # rows [low, high) in order, which have `depth` tokens in the spans up to `parent`
    while todo:
        low, high, depth, parent = todo.pop()
        if high - low == 1:
            row = rows[places[low]]
            leaves[places[low]] = tree.add(row[depth:], depth, parent) if len(row) > depth else parent
            continue
        same = min(equal[low + 1 : high])
        if same - depth >= share_from or same == len(rows[places[low]]) == len(rows[places[high - 1]]):
            parent = tree.add(rows[places[low]][depth:same], depth, parent) if same > depth else parent
            depth = same
        cuts = [low, *(i for i in range(low + 1, high) if equal[i] == same), high]
        todo.extend((a, b, depth, parent) for a, b in reversed(list(pairwise(cuts))))
    return leaves
