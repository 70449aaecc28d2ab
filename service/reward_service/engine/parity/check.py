"""The parity check: golden conversations through the engine, compared with Transformers or with the engine itself."""

import asyncio
import logging
import math
from collections.abc import Callable, Sequence
from pathlib import Path

from reward_service.config import ClassifierConfig
from reward_service.engine.engine import Item, Parity
from reward_service.engine.fingerprint import weight_files
from reward_service.engine.parity.judging import Served, Verdict, against_itself, against_reference
from reward_service.engine.parity.observing import Observed, Scorer, Unscored, observe
from reward_service.engine.parity.reference import Ids, ReferenceFailed, reference_ids, stored_parameters
from reward_service.engine.parity.refusal import ParityRefused
from reward_service.engine.rendering import Rendered
from reward_service.errors import NotReady

log = logging.getLogger(__name__)

MOST_PARAMETERS = 2_000_000_000
"""Up to so many `auto` compares with Transformers: the float32 weights take 8 GB for a while."""


async def check_parity(
    engine: Scorer,
    config: ClassifierConfig,
    folder: Path | None,
    *,
    render: Callable[[Item], Rendered] | None = None,
    raw: bool = False,
) -> Parity:
    """Scores the golden set through `engine`; raises ParityRefused when its scores cannot be the model's.

    `folder` holds the model's tokenizer and, for a comparison with Transformers, its weights; without it token counts
    are not checked. `render` is the engine's own rendering, if it has one: then token ids are compared. `raw` says that
    no activation can stand behind the scores, so that scores in [0, 1] are the model's own.
    """
    mode = chosen_mode(config, folder)
    observed = await observe(engine)
    if isinstance(observed, Unscored):
        reason = f"the conversation {observed.name!r} has no score: {observed.error.detail}"
        raise ParityRefused(config.name, reason, Parity(mode, 0, None, None))
    if not observed.names:
        log.warning("model %s reads too few tokens for any of the conversations of the parity check", config.name)
        return Parity(mode, 0, None, None)
    try:
        verdict = await asyncio.to_thread(_judge, config, folder, mode, observed, render, raw)
    except ReferenceFailed as error:
        raise NotReady(f"model {config.name!r}: the parity check has no reference: {error}") from error
    if verdict.refusal is not None:
        raise ParityRefused(config.name, verdict.refusal, verdict.parity)
    return verdict.parity


def chosen_mode(config: ClassifierConfig, folder: Path | None) -> str:
    """`reference` or `self`; NotReady when a reference is asked for and the weights are not here."""
    weights = [] if folder is None else weight_files(folder)
    if config.parity == "reference" and not weights:
        raise NotReady(
            f"model {config.name!r}: parity 'reference' needs the weights (model.safetensors) in {config.source}; "
            "valid without them: 'auto', 'self'"
        )
    if config.parity != "auto":
        return config.parity
    return "reference" if folder and weights and stored_parameters(folder) <= MOST_PARAMETERS else "self"


def _judge(
    config: ClassifierConfig,
    folder: Path | None,
    mode: str,
    observed: Observed,
    render: Callable[[Item], Rendered] | None,
    raw: bool,
) -> Verdict:
    """Blocking: loads the model up to twice, one after the other."""
    ids = None
    if folder is not None:
        ids = reference_ids(folder, observed.items, trust_remote_code=config.trust_remote_code)
        whole = _whole(config, observed, ids)
        observed, ids = observed.only(whole), [ids[place] for place in whole]
    rendered = None if render is None else [render(item).ids.tolist() for item in observed.items]
    served = Served(observed, rendered, raw)
    if mode == "self" or folder is None or ids is None:
        return against_itself(served, ids, config.dtype)
    try:
        return against_reference(served, ids, folder, config)
    except ReferenceFailed as error:
        if config.parity == "reference":
            raise
        log.warning("model %s is compared with itself only: Transformers has no reference (%s)", config.name, error)
        return against_itself(served, ids, config.dtype)


def _whole(config: ClassifierConfig, observed: Observed, ids: Sequence[Ids]) -> list[int]:
    """The places of the conversations of which the engine does not drop the oldest tokens."""
    longest = max(observed.tokens) if config.on_too_long == "truncate_left" else math.inf
    return [place for place, row in enumerate(ids) if len(row) <= longest]
