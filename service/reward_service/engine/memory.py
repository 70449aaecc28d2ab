"""How this process gets its memory from the system, where that decides how fast a CPU computes."""

import ctypes
import functools
import sys

ARENA_MAX, MMAP_THRESHOLD, TRIM_THRESHOLD, TOP_PAD = -8, -3, -1, -2
LARGEST_THRESHOLD = 32 << 20


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
    options = ((ARENA_MAX, 1), (MMAP_THRESHOLD, LARGEST_THRESHOLD), (TRIM_THRESHOLD, 1 << 30), (TOP_PAD, 64 << 20))
    accepted = [mallopt(option, value) == 1 for option, value in options]
    return all(accepted)
