"""What packs compute in C++ on CPUs with AMX, compiled on first use; where it cannot run, `load` says so with None."""

import ctypes
import functools
import logging
import subprocess
import sys
from pathlib import Path

import torch

from reward_service.engine.compiling import compiled, reason

log = logging.getLogger(__name__)

SOURCES = tuple(Path(__file__).with_name(name) for name in ("attention.cpp", "feed_forward.cpp", "amx.h"))
FLAGS = (
    *("-O3", "-std=c++17", "-shared", "-fPIC", "-fopenmp"),
    *("-mfma", "-mavx512f", "-mavx512bw", "-mavx512vl", "-mavx512dq", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"),
)
NEEDED = {"avx512f", "avx512bw", "avx512vl", "avx512dq", "avx512_bf16", "amx_tile", "amx_bf16"}


@functools.cache
def load() -> ctypes.CDLL | None:
    """The compiled library, or None on a machine that cannot run or compile it; tried once per process."""
    if not _runs_here():
        return None
    try:
        library = ctypes.CDLL(str(compiled(SOURCES, [*FLAGS, *_openmp()])))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("the native kernels cannot be compiled, torch's are used: %s", reason(error))
        return None
    return library if library.rs_allow_tiles() == 0 else None


def _runs_here() -> bool:
    cpu = Path("/proc/cpuinfo")
    if sys.platform != "linux" or not cpu.is_file():
        return False
    flags = next((line for line in cpu.read_text().splitlines() if line.startswith("flags")), "")
    return set(flags.split()) >= NEEDED


def _openmp() -> list[str]:
    """Torch's own OpenMP runtime goes first, so that both use one pool of threads."""
    folder = Path(torch.__file__).parent / "lib"
    return [f"-Wl,-rpath,{folder}"] if next(folder.glob("libgomp*"), None) else []
