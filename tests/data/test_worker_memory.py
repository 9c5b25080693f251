"""Memory of worker processes: freed pages are used again."""

from __future__ import annotations

import platform
import subprocess
import sys

import pytest

COUNT_FAULTS = """
import resource
import numpy as np
from densemtl.data.worker_memory import keep_freed_memory

def count_faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    for _ in range(10):
        np.ones(2**22)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

print(count_faults(), keep_freed_memory(), count_faults(), count_faults())
"""
"""Ten arrays of 32 MiB, which have 8192 pages of 4 KiB each."""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="the C library is not glibc")
def test_freed_memory_is_not_cleared_again() -> None:
    command = [sys.executable, "-c", COUNT_FAULTS]
    output = subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()
    before, kept, _, after = output
    assert kept == "True"
    assert int(after) < int(before) / 10


def test_other_libraries_are_left_as_they_are(monkeypatch: pytest.MonkeyPatch) -> None:
    from densemtl.data import worker_memory

    monkeypatch.setattr(worker_memory.platform, "libc_ver", lambda: ("", ""))
    monkeypatch.setattr(worker_memory.ctypes, "CDLL", None)
    assert not worker_memory.keep_freed_memory()
