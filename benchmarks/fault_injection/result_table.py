"""What a kind of fault came to, as rows of a Markdown table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

TABLE_HEADER = "| fault | tried | lost | what is seen |\n|---|---|---|---|"

REPORTED, NO_EFFECT, RESUMED_EXACTLY = (
    "one line that names the file",
    "without effect",
    "goes on exactly",
)
"""How a fault may end."""


@dataclass
class Row:
    """One kind of fault.

    Attributes:
        fault: what was done.
        outcomes: how often it ended how; all ends that are not among `acceptable` are losses.
        acceptable: ends that lose nothing.
        examples: one text for each loss, to look into.
    """

    fault: str
    outcomes: Counter[str] = field(default_factory=Counter)
    acceptable: tuple[str, ...] = (REPORTED, NO_EFFECT, RESUMED_EXACTLY)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: str, example: str = "") -> None:
        """Count one."""
        self.outcomes[outcome] += 1
        if outcome not in self.acceptable:
            self.examples.setdefault(outcome, example)

    def __str__(self) -> str:
        lost = sum(count for end, count in self.outcomes.items() if end not in self.acceptable)
        seen = ", ".join(f"{end}: {count}" for end, count in self.outcomes.most_common())
        return f"| {self.fault} | {self.outcomes.total()} | {lost} | {seen} |"
