"""What a policy's state allows, and what a write makes of it."""

from dataclasses import replace
from secrets import token_hex

from reward_service.baselines.records import PolicyState
from reward_service.errors import PolicyFrozen, PolicyRevisionConflict


def refuse_frozen(policy: str, state: PolicyState) -> None:
    """Raise PolicyFrozen when the policy's baselines are frozen."""
    if state.frozen:
        raise PolicyFrozen(
            f"the baselines of policy {policy!r} are frozen at revision {state.revision}; unfreeze it first"
        )


def refuse_other_revision(policy: str, state: PolicyState, policy_revision: str | None) -> None:
    """Raise PolicyRevisionConflict when the policy has baselines and they are of another policy revision.

    None means "not stated" and is another revision than any that is stated.
    """
    if state.records and state.policy_revision != policy_revision:
        raise PolicyRevisionConflict(
            f"policy {policy!r} stands for {revision_words(state.policy_revision)}, the write for "
            f"{revision_words(policy_revision)}; give the other revision a policy name of its own, or delete the "
            f"policy's {state.records} record(s) under all models, also those no longer served, by a delete that "
            "names no model"
        )


def revision_words(policy_revision: str | None) -> str:
    """The revision in words."""
    return "no stated revision" if policy_revision is None else f"revision {policy_revision!r}"


def after_write(state: PolicyState, policy_revision: str | None, added: int) -> PolicyState:
    """The state after a write that changed something and added `added` records."""
    return _next(state, policy_revision, state.records + added)


def after_delete(state: PolicyState, deleted: int) -> PolicyState:
    """The state after `deleted` records went; with the last one the policy name is free for another revision."""
    records = state.records - deleted
    return _next(state, state.policy_revision if records else None, records)


def _next(state: PolicyState, policy_revision: str | None, records: int) -> PolicyState:
    return replace(
        state, policy_revision=policy_revision, revision=state.revision + 1, records=records, token=token_hex(8)
    )
