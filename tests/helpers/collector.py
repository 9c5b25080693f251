"""Less frequent garbage collection; to be imported before large libraries.

torch, timm and other libraries create more than half a million permanent objects, and each full
garbage collection visits all of them. With Python's default threshold, this takes a sixth of the
import time.
"""

from __future__ import annotations

import gc

gc.set_threshold(20_000)
