"""The memory of large tensors on a CPU, kept apart from everything else: C++ that is compiled on first use."""

import ctypes
import functools
import logging
import subprocess
import sys
from pathlib import Path

import torch

from reward_service.engine.compiling import compiled, reason

log = logging.getLogger(__name__)

SOURCE = Path(__file__).with_name("segments.cpp")
TORCH = Path(torch.__file__).parent


@functools.cache
def keep_segments() -> ctypes.CDLL | None:
    """From now on torch keeps the memory of large tensors for the next ones; None where that cannot be.

    Tensors from 256 KiB to 256 MiB, in segments of a power of two that nothing else lies in. What is kept is as much
    as was ever in use at once of each size, until `release_segments`.
    """
    if sys.platform != "linux":
        return None
    try:
        library = ctypes.CDLL(str(compiled([SOURCE], _flags())))
    except (OSError, RuntimeError, subprocess.SubprocessError) as error:
        log.warning("the allocator of large tensors cannot be compiled, the C library's is used: %s", reason(error))
        return None
    library.rs_release_segments.restype = ctypes.c_size_t
    library.rs_keep_segments()
    return library


def release_segments() -> int:
    """Gives the system back what is kept and not in use; how many bytes, by the sizes of the segments."""
    library = keep_segments() if keep_segments.cache_info().currsize else None
    return 0 if library is None else int(library.rs_release_segments())


def _flags() -> list[str]:
    """Headers and library of the torch that runs; its version is part of the name of the compiled file."""
    abi = int(torch.compiled_with_cxx11_abi())
    return [
        *("-O2", "-std=c++20", "-shared", "-fPIC", f"-D_GLIBCXX_USE_CXX11_ABI={abi}", f"-DTORCH={torch.__version__}"),
        *(f"-I{TORCH / 'include'}", f"-L{TORCH / 'lib'}", "-lc10", f"-Wl,-rpath,{TORCH / 'lib'}"),
    ]
