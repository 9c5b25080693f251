"""Memory of worker processes, which is kept instead of being returned to the operating system."""

from __future__ import annotations

import ctypes
import platform

M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4
"""Parameters of `mallopt`, from malloc.h of glibc."""

NEVER = 2**31 - 1
"""Threshold in bytes that is not reached, the largest value of `mallopt`."""


def keep_freed_memory() -> bool:
    """Let this process use freed memory again instead of returning it to the operating system.

    By default, glibc returns the memory of each large array when it is freed, and the operating
    system clears the pages of the next one. Labels and batches of images are such arrays: clearing
    pages took a third of the CPU time of loading images with four labels in a worker. The memory of
    the process remains at its maximum.

    Returns:
        True if the C library is glibc; others are left as they are.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_MAX, 0)) and bool(mallopt(M_TRIM_THRESHOLD, NEVER))
