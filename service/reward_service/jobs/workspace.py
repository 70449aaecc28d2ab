"""The state of a job on disk, from which it goes on after any end.

Rows are appended to two files. A commit makes them durable first and then replaces the state, which says how long both
files are and where in the input they end. What a killed process wrote after its last commit is cut off by the next one.
"""

import fcntl
import json
import os
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from types import TracebackType
from typing import IO, Any, Self

from reward_service.errors import JobStopped
from reward_service.jobs.files import as_json, read_json, write_whole, writing
from reward_service.jobs.identities import Identities
from reward_service.jobs.reading import Cursor

BUFFER_BYTES = 1024 * 1024


@dataclass(slots=True)
class State:
    """What is committed: rows up to `end`, in so many bytes of the two files; `pin` names what scored them."""

    pin: dict[str, Any] | None = None
    end: Cursor = field(default_factory=Cursor)
    rows_bytes: int = 0
    errors_bytes: int = 0
    scored: int = 0
    failed: dict[str, int] = field(default_factory=dict)
    tokens: int = 0
    seconds: float = 0.0
    complete: bool = False

    @property
    def errors(self) -> int:
        """Rows without a reward."""
        return sum(self.failed.values())

    @classmethod
    def of(cls, document: Mapping[str, Any]) -> Self:
        """The state that `asdict` wrote."""
        return cls(**{**document, "end": Cursor(**document["end"])})


class Workspace:
    """The folder of a job beside its output, held by one process at a time until the end of the block."""

    def __init__(self, output: Path) -> None:
        self.output = output
        self.folder = beside(output, "job")
        self.rows = self.folder / "rows.jsonl"
        self.errors = self.folder / "errors.jsonl"
        self.state = State()
        self._manifest = self.folder / "manifest.json"
        self._state = self.folder / "state.json"
        self._files: list[IO[bytes]] = []
        self._identities: Identities | None = None

    def __enter__(self) -> Self:
        self._lock = _locked(self.folder)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
        if not self._manifest.exists():
            shutil.rmtree(self.folder, ignore_errors=True)
        os.close(self._lock)

    @property
    def identities(self) -> Identities:
        """The ids of the rows that are written; open after `begin`."""
        if self._identities is None:
            raise RuntimeError("the workspace is not open for rows")
        return self._identities

    def manifest(self) -> Any:
        """What the unfinished job in the folder was begun with; None when there is none."""
        return read_json(self._manifest)

    def clear(self) -> None:
        """Throw away what an earlier run left; the manifest goes first, so that no half of it is ever resumed."""
        with writing(self.folder):
            self._manifest.unlink(missing_ok=True)
            for path in self.folder.iterdir():
                if path.name != "lock":
                    path.unlink()

    def begin(self, manifest: Mapping[str, Any]) -> None:
        """Go on where the last commit was, or begin."""
        saved = read_json(self._state) if self._manifest.exists() else None
        if saved is None:
            self.clear()
            write_whole(self._manifest, as_json(manifest), by_way_of=self.folder / "manifest.tmp")
        else:
            self.state = State.of(saved)
        if self.state.complete:
            return
        with writing(self.folder):
            sizes = ((self.rows, self.state.rows_bytes), (self.errors, self.state.errors_bytes))
            self._files = [_cut(path, size) for path, size in sizes]
            self._identities = Identities(self.folder / "ids.db")

    def append(self, rows: Sequence[bytes], errors: Sequence[bytes]) -> None:
        """Add lines; they are durable after the next commit."""
        with writing(self.folder):
            for file, lines in zip(self._files, (rows, errors), strict=True):
                file.write(b"".join(lines))
        self.state.rows_bytes += sum(map(len, rows))
        self.state.errors_bytes += sum(map(len, errors))

    def commit(self) -> None:
        """Make durable what was appended, and then the state that says so."""
        with writing(self.folder):
            for file in self._files:
                file.flush()
                os.fsync(file.fileno())
            self.identities.commit()
        write_whole(self._state, json.dumps(asdict(self.state)).encode(), by_way_of=self.folder / "state.tmp")

    def publish(self, work: Path, final: Path) -> None:
        """Move a whole file to where it belongs, or leave it there where an earlier run did so."""
        if work.exists() or not final.exists():
            with writing(final):
                work.replace(final)

    def close(self) -> None:
        """Close the files; what was not committed does not count."""
        for file in self._files:
            with suppress(OSError):
                file.close()
        self._files = []
        if self._identities is not None:
            self._identities.close()
            self._identities = None


def beside(output: Path, suffix: str) -> Path:
    """The file that goes with an output: `scores.jsonl` has `scores.jsonl.summary.json`."""
    return output.with_name(f"{output.name}.{suffix}")


def _cut(path: Path, size: int) -> IO[bytes]:
    """A file to append to, as long as it was at the last commit."""
    file = path.open("ab", BUFFER_BYTES)
    if (present := file.tell()) < size:
        file.close()
        raise JobStopped(
            f"{path} has {present} bytes instead of {size}: it was changed; --restart scores everything anew"
        )
    file.truncate(size)
    return file


def _locked(folder: Path) -> int:
    """The lock of a folder, which the end of the process gives up; JobStopped when another process has it."""
    while True:
        try:
            folder.mkdir(exist_ok=True)
            lock = os.open(folder / "lock", os.O_RDWR | os.O_CREAT, 0o644)
        except FileNotFoundError as error:
            if not folder.parent.is_dir():
                raise JobStopped(f"{folder} cannot be written: there is no folder {folder.parent}") from error
            continue  # the run that had it ended between the two and took the folder with it
        except OSError as error:
            raise JobStopped(f"{folder} cannot be written: {error.strerror}") from error
        if _holds(lock, folder / "lock"):
            return lock
        os.close(lock)


def _holds(lock: int, path: Path) -> bool:
    """Whether the lock is held now, and of the file that stands there."""
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        return os.fstat(lock).st_ino == path.stat().st_ino
    except BlockingIOError:
        os.close(lock)
        raise JobStopped(f"{path.parent}: another run is at work on this output; wait for it, or end it") from None
    except FileNotFoundError:
        return False
