"""What packs compute in C++ on CPUs with AMX, compiled on first use; where it cannot run, `load` says so with None."""

import ctypes
import functools
import hashlib
import logging
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import torch

log = logging.getLogger(__name__)

SOURCES = tuple(Path(__file__).with_name(name) for name in ("attention.cpp", "feed_forward.cpp", "amx.h"))
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
)
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "amx_tile", "amx_bf16"}
COMPILE_TIMEOUT_S = 120.0


@functools.cache
def load() -> ctypes.CDLL | None:
    """The compiled library, or None on a machine that cannot run or compile it; tried once per process."""
    if not _runs_here():
        return None
    try:
        library = ctypes.CDLL(str(_compiled()))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("the native kernels cannot be compiled, torch's are used: %s", _reason(error))
        return None
    return library if library.rs_allow_tiles() == 0 else None


def _runs_here() -> bool:
    cpu = Path("/proc/cpuinfo")
    if sys.platform != "linux" or not cpu.is_file():
        return False
    flags = next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "")
    return set(flags.split()) >= NEEDED


def _compiled() -> Path:
    """The library's file, compiled now unless a process did so before; named by source, flags and compiler."""
    compiler = os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        raise OSError("there is no C++ compiler: install g++ or set CXX")
    version = _run([compiler, "--version"])
    sources = b"".join(source.read_bytes() for source in SOURCES)
    digest = hashlib.sha256(sources + version.encode() + " ".join(FLAGS).encode()).hexdigest()[:16]
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "reward-service"
    target = folder / f"kernels-{digest}.so"
    if not target.is_file():
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as place:
            built = Path(place) / target.name
            _run([compiler, *FLAGS, *map(str, SOURCES[:-1]), "-o", str(built), *_openmp()])
            built.replace(target)  # atomic: another process sees all of it or nothing
    return target


def _run(command: list[str]) -> str:
    done = subprocess.run(command, check=True, capture_output=True, text=True, timeout=COMPILE_TIMEOUT_S)  # noqa: S603
    return done.stdout


def _openmp() -> list[str]:
    """Torch's own OpenMP runtime goes first, so that both use one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    return [f"-Wl,-rpath,{folder}"] if next(folder.glob("libgomp*"), None) else []


def _reason(error: Exception) -> str:
    output = getattr(error, "stderr", None)
    return str(output).strip().splitlines()[-1] if output else str(error)
