"""Reference rows, global snapshots and canned responses: stored, merged, and read in one round trip per request."""

from reward_service.baselines.baselines import Baselines
from reward_service.baselines.canned import Compute
from reward_service.baselines.entries import Entry
from reward_service.baselines.keys import CannedKey, RowsKey, SnapshotKey, prompt_key
from reward_service.baselines.reading import Lookup
from reward_service.baselines.records import Mode, PolicyState, Snapshot, Statistic, StoredRows
from reward_service.baselines.rows import MAX_ROWS, Rows
from reward_service.baselines.writing import Deletion, PutResult

__all__ = [
    "MAX_ROWS",
    "Baselines",
    "CannedKey",
    "Compute",
    "Deletion",
    "Entry",
    "Lookup",
    "Mode",
    "PolicyState",
    "PutResult",
    "Rows",
    "RowsKey",
    "Snapshot",
    "SnapshotKey",
    "Statistic",
    "StoredRows",
    "prompt_key",
]
