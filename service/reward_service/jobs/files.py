"""Files that are whole or absent, whatever ends the process."""

import json
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from reward_service.errors import JobStopped


@contextmanager
def writing(path: Path) -> Iterator[None]:
    """Tells what hinders writing (a full disk, say) as JobStopped; what was committed before stays."""
    try:
        yield
    except (OSError, sqlite3.Error) as error:
        reason = error.strerror if isinstance(error, OSError) else error
        raise JobStopped(
            f"{path} cannot be written: {reason}; what was committed is safe: "
            "make room and run the same command again to go on"
        ) from error


def write_whole(path: Path, content: bytes, *, by_way_of: Path) -> None:
    """Write a file so that it has its old content or the new one, never a part; `by_way_of` is a file beside it."""
    with writing(path):
        with by_way_of.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        by_way_of.replace(path)


def read_json(path: Path) -> Any:
    """The document in a file, None where there is no such file."""
    try:
        return json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValueError) as error:
        raise JobStopped(f"{path} cannot be read: {error}; --restart scores everything anew") from error


def as_json(document: Any) -> bytes:
    """A document to be read by people too."""
    return f"{json.dumps(document, indent=2, ensure_ascii=False)}\n".encode("utf-8", "backslashreplace")
