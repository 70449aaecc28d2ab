"""How this process gets its memory from the system, and gives back that of a model."""

import ctypes
import functools
import gc
import os
import sys

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD = -8, -3, -1
LARGEST_THRESHOLD = 32 << 20
LARGEST_FREE = 128 << 20
KERNEL_CACHES = {"ONEDNN_PRIMITIVE_CACHE_CAPACITY": "16", "LRU_CACHE_CAPACITY": "16"}
"""Kernels that oneDNN keeps, by shape. Packs rarely have the same length twice: the 1,024 of the default take 1.5 GB
and are not used again."""


def keep_few_kernels() -> None:
    """Bounds the memory of oneDNN's kernels, unless the environment does; counts when set before the first product."""
    for name, capacity in KERNEL_CACHES.items():
        os.environ.setdefault(name, capacity)


@functools.cache
def keep_freed_memory() -> bool:
    """Lets the C library keep what tensors free, so that the next ones need no fresh pages from the system.

    Fresh pages are zeroed one by one, which takes as long as the matrix products in between. The process stays as
    large as its largest batch made it. Only glibc can be told so; the answer is whether it was.
    """
    try:
        mallopt = ctypes.CDLL(None).mallopt if sys.platform == "linux" else None
    except (AttributeError, OSError):
        return False
    if mallopt is None:
        return False
    options = ((ARENA_MAX, 1), (MMAP_THRESHOLD, LARGEST_THRESHOLD), (TRIM_THRESHOLD, LARGEST_FREE))
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
    if torch is not None and torch.cuda.is_initialized():
        torch.cuda.empty_cache()
    if sys.platform == "linux" and hasattr(libc := ctypes.CDLL(None), "malloc_trim"):
        libc.malloc_trim(0)
