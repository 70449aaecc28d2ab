"""Short ways to write rewards of the policy `sft` and to read them back."""

from typing import Any

from reward_service.baselines import Baselines, Entry, PolicyState, PutResult, Rows, RowsKey

MODEL = "sha256:" + "a" * 64
OTHER_MODEL = "sha256:" + "b" * 64


async def put(baselines: Baselines, *entries: Entry, **changes: Any) -> PutResult:
    given: dict[str, Any] = {"fingerprint": MODEL, "policy": "sft", "policy_revision": "r1", "labels": 1}
    return await baselines.put(entries=entries, **(given | changes))


async def rows_of(baselines: Baselines, prompt: str = "p", **changes: str) -> Rows | None:
    key = RowsKey(**({"fingerprint": MODEL, "policy": "sft", "prompt": prompt} | changes))
    found = (await baselines.look_up(rows=[key])).rows
    return found[key].rows if key in found else None


async def rewards_of(baselines: Baselines, prompt: str = "p") -> list[float]:
    rows = await rows_of(baselines, prompt)
    return [] if rows is None else sorted(rows.outputs[:, 0])


async def state_of(baselines: Baselines, policy: str = "sft") -> PolicyState:
    return (await baselines.look_up(policies=[policy])).policies[policy]
