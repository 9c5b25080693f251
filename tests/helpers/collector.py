"""Imported before anything large: garbage is collected less often.

What torch, timm and the rest leave in memory is more than half a million objects, and each full
collection goes through them all. With Python's own threshold a sixth of the time that imports take
goes into that.
"""

from __future__ import annotations

import gc

gc.set_threshold(20_000)
