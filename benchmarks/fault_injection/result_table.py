"""What a kind of fault came to, as rows of a Markdown table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

HEAD = "| fault | tried | lost | what is seen |\n|---|---|---|---|"

TOLD, HARMLESS, RIGHT = "one line that names the file", "without effect", "goes on exactly"
"""How a fault may end."""


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault: what was done.
        ends: how often it ended how; all ends that are not among `good` are losses.
        good: ends that lose nothing.
        examples: one text for each loss, to look into.
    """

    fault: str
    ends: Counter[str] = field(default_factory=Counter)
    good: tuple[str, ...] = (TOLD, HARMLESS, RIGHT)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, end: str, example: str = "") -> None:
        """Count one."""
        self.ends[end] += 1
        if end not in self.good:
            self.examples.setdefault(end, example)

    def __str__(self) -> str:
        lost = sum(count for end, count in self.ends.items() if end not in self.good)
        seen = ", ".join(f"{end}: {count}" for end, count in self.ends.most_common())
        return f"| {self.fault} | {self.ends.total()} | {lost} | {seen} |"
