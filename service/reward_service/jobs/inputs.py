"""The files of a job: what a path, a pattern or a URL stands for, and how to know a file again."""

import glob
import hashlib
import io
import posixpath
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import IO, Any

import fsspec

from reward_service.errors import JobStopped

FORMATS = {".jsonl": "jsonl", ".jsonl.gz": "jsonl.gz", ".parquet": "parquet"}
SAMPLES = 16
SAMPLE_BYTES = 64 * 1024
READ_AHEAD_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class InputFile:
    """A file, and what tells that it is still the same: its size, when it was modified, and a digest of samples of it.

    `name` is its path below the folder that all inputs of the job share, so that it stays when the folder moves.
    """

    url: str
    name: str
    format: str
    size: int
    modified: str
    sample: str

    def open(self) -> IO[bytes]:
        """The file from its first byte."""
        return open_binary(self.url)

    @property
    def identity(self) -> dict[str, Any]:
        """What must not change between two runs of a job."""
        return {"size": self.size, "modified": self.modified, "sample": self.sample}


def find_inputs(patterns: Sequence[str]) -> list[InputFile]:
    """The files that paths, patterns and URLs stand for, each in the order given; JobStopped names what is wrong."""
    urls = [url for pattern in patterns for url in _expanded(pattern)]
    for url, count in Counter(urls).items():
        if count > 1:
            raise JobStopped(f"{url} is named {count} times; each row is scored once")
    return [_described(url, name) for url, name in zip(urls, _names(urls), strict=True)]


def open_binary(url: str) -> IO[bytes]:
    """A file to read; JobStopped when it cannot be opened."""
    with reading(url):
        if "://" not in url:
            return Path(url).open("rb")
        file = fsspec.open(url, "rb").open()
        return file if isinstance(file, io.BytesIO) else io.BufferedReader(file, READ_AHEAD_BYTES)


@contextmanager
def reading(url: str) -> Iterator[None]:
    """Tells what hinders reading as JobStopped, with the file's name."""
    try:
        yield
    except (OSError, EOFError, ImportError, ValueError) as error:
        raise JobStopped(f"{url} cannot be read: {error or type(error).__name__}") from error


def _expanded(pattern: str) -> list[str]:
    """The files of a pattern in order of their names; a local file of that very name is meant as it is."""
    if "://" in pattern:
        with reading(pattern):
            found = _expanded_url(pattern)
    elif Path(pattern).is_file():
        found = [str(Path(pattern).resolve())]
    else:
        found = sorted(str(Path(path).resolve()) for path in glob.glob(pattern, recursive=True) if Path(path).is_file())
    if not found:
        hint = (
            f"a folder; name its files, such as {pattern.rstrip('/')}/*.jsonl" if Path(pattern).is_dir() else "no file"
        )
        raise JobStopped(f"{pattern}: {hint}")
    return found


def _expanded_url(pattern: str) -> list[str]:
    filesystem, path = fsspec.core.url_to_fs(pattern)
    paths = sorted(filesystem.glob(path)) if glob.has_magic(path) else [path] * filesystem.isfile(path)
    return [filesystem.unstrip_protocol(one) for one in paths]


def _names(urls: Sequence[str]) -> list[str]:
    """Each file's path below the folder that they share; the whole URL where they do not even share a scheme."""
    if len({"://" in url for url in urls}) > 1:
        return list(urls)
    folders = {posixpath.dirname(url) for url in urls}
    shared = posixpath.commonpath(folders)
    return [posixpath.relpath(url, shared) for url in urls]


def _described(url: str, name: str) -> InputFile:
    kind = next((FORMATS[suffix] for suffix in FORMATS if url.endswith(suffix)), None)
    if kind is None:
        raise JobStopped(f"{url}: the name ends in none of {', '.join(FORMATS)}")
    with reading(url):
        size, modified = _size_and_time(url)
        return InputFile(url, name, kind, size, modified, _sample(url, size))


def _size_and_time(url: str) -> tuple[int, str]:
    """The size in bytes, and whatever the file system tells of the last change."""
    if "://" not in url:
        status = Path(url).stat()
        return status.st_size, _told_time(status.st_mtime_ns)
    filesystem, path = fsspec.core.url_to_fs(url)
    info = filesystem.info(path)
    if info.get("size") is None:
        raise JobStopped(f"{url}: its server does not tell its size, so that a job could not go on in it; copy it here")
    known = (info.get(key) for key in ("ETag", "etag", "LastModified", "last_modified", "mtime", "updated", "created"))
    return int(info["size"]), str(next((one for one in known if one is not None), ""))


def _sample(url: str, size: int) -> str:
    """A digest of the beginning, the end and what lies evenly between: a megabyte at most, also of a large file."""
    digest = hashlib.sha256()
    last = max(0, size - SAMPLE_BYTES)
    with open_binary(url) as file:
        for place in sorted({last * i // (SAMPLES - 1) for i in range(SAMPLES)}):
            file.seek(place)
            digest.update(file.read(SAMPLE_BYTES))
    return digest.hexdigest()


def _told_time(nanoseconds: int) -> str:
    seconds, rest = divmod(nanoseconds, 10**9)
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%d %H:%M:%S}.{rest:09d} UTC"
