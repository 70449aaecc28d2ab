"""How this process gets its memory from the system, and gives back that of a model."""

import ctypes
import functools
import gc
import os
import sys
from types import ModuleType

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
LARGEST_THRESHOLD = 32 << 20
LARGEST_FREE = 128 << 20
WITHOUT_TENSORS = 1 << 20
"""From so many bytes on what is no tensor (the body of a request) leaves the process when it is freed."""
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}
"""Kernels that oneDNN keeps, by shape. Packs rarely have the same length twice: the 1,024 of the default take 1.5 GB
and are not used again."""


def keep_few_kernels() -> None:
    """Bounds the memory of oneDNN's kernels, unless the environment does; counts when set before the first product."""
    for name, capacity in KERNEL_CACHES.items():
        os.environ.setdefault(name, capacity)


@functools.cache
def keep_freed_memory() -> bool:
    """Keeps what tensors free for the next ones, which then need no fresh pages from the system.

    Fresh pages are zeroed one by one, which takes as long as the matrix products in between. Large tensors lie in
    segments of their own; where there is no compiler for that, everything lies in one heap of the C library, which
    grows as small things break up the room between large ones. The process stays as large as its largest batch made it.
    Only glibc can be told so; the answer is whether it was.
    """
    from reward_service.engine.segments import keep_segments  # late: a service without models here needs no torch

    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (AttributeError, OSError):
        return False
    if mallopt is None:
        return False
    threshold = LARGEST_THRESHOLD if keep_segments() is None else WITHOUT_TENSORS
    options = ((ARENA_MAX, 1), (MMAP_THRESHOLD, threshold), (TRIM_THRESHOLD, LARGEST_FREE))
    accepted = [mallopt(option, value) == 1 for option, value in options]
    return all(accepted)


def release_memory() -> None:
    """Blocking: frees what closed engines leave behind, on the device too.

    Models hold themselves in cycles, and those that were loaded before a `gc.freeze` are in no ordinary collection.
    """
    frozen = gc.get_freeze_count() > 0
    gc.unfreeze()
    gc.collect()
    if frozen:
        gc.freeze()
    torch = sys.modules.get("torch")
    if torch is not None:
        _release_tensors(torch)
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)


def _release_tensors(torch: ModuleType) -> None:
    from reward_service.engine.segments import release_segments

    release_segments()
    if torch.cuda.is_initialized():
        torch.cuda.empty_cache()
