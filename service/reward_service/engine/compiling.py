"""C++ of ours to a library that can be loaded: compiled on first use, kept in the user's cache folder."""

import hashlib
import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

COMPILE_TIMEOUT_S = 120.0


def compiled(sources: Sequence[Path], flags: Sequence[str]) -> Path:
    """The library's file, compiled now unless a process did so before; named by sources, flags and compiler.

    Headers among the sources count for the name only. Raises OSError without a compiler, SubprocessError when it fails.
    """
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise OSError("there is no C++ compiler: install g++ or set CXX")
    version = _run([compiler, "--version"])
    written = b"".join(source.read_bytes() for source in sources)
    digest = hashlib.sha256(written + version.encode() + " ".join(flags).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reward-service"
    target = folder / f"{sources[0].stem}-{digest}.so"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            built = Path(place) / target.name
            _run([compiler, *(str(source) for source in sources if source.suffix == ".cpp"), *flags, "-o", str(built)])
            built.replace(target)  # atomic: another process sees all of it or nothing
    return target


def reason(error: Exception) -> str:
    """Why it could not be compiled or loaded, in one line."""
    lines = str(getattr(error, "stderr", None) or "").split("\n")
    return next((line.strip() for line in reversed(lines) if line.strip()), str(error))


def _run(command: list[str]) -> str:
    done = subprocess.run(  # noqa: S603
        command, check=True, capture_output=True, text=True, errors="replace", timeout=COMPILE_TIMEOUT_S
    )
    return done.stdout
