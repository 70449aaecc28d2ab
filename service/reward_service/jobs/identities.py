"""Which ids a job has seen, on disk: so that each is scored once at any number of rows, in flat memory."""

import hashlib
import sqlite3
from pathlib import Path

from reward_service.jobs.rows import Row

SCHEMA = "CREATE TABLE IF NOT EXISTS ids (digest BLOB PRIMARY KEY, file INTEGER, name TEXT, line INTEGER) WITHOUT ROWID"


class Identities:
    """The first row of each id. What was noted after a commit may be there: a row is no double of itself."""

    def __init__(self, path: Path) -> None:
        self._database = sqlite3.connect(path, check_same_thread=False)
        self._database.execute("PRAGMA journal_mode = WAL")
        self._database.execute("PRAGMA synchronous = FULL")
        self._database.execute(SCHEMA)

    def earlier(self, row: Row) -> str | None:
        """Where a row before this one has its id, as `file:line`; None when it is the first, which is noted."""
        digest = hashlib.blake2b(row.id.encode("utf-8", "surrogatepass"), digest_size=16).digest()
        mine = (row.end.file, row.end.line)
        added = self._database.execute(
            "INSERT OR IGNORE INTO ids VALUES (?, ?, ?, ?)", (digest, mine[0], row.file, mine[1])
        )
        if added.rowcount:
            return None
        seen = self._database.execute("SELECT file, line, name FROM ids WHERE digest = ?", (digest,)).fetchone()
        return None if seen[:2] == mine else f"{seen[2]}:{seen[1]}"

    def commit(self) -> None:
        """Make durable what was noted."""
        self._database.commit()

    def close(self) -> None:
        """Forget what was not committed."""
        self._database.close()
