"""Outcomes of fault injection as rows of a Markdown table."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass, field

TABLE_HEADER = "| fault | tried | lost | result |\n|---|---|---|---|"

REPORTED, NO_EFFECT, RESUMED_EXACTLY = (
    "one line that names the file",
    "without effect",
    "resumes exactly",
)
"""Outcomes without a loss."""


@dataclass
class Row:
    """Outcomes of one kind of fault.

    Attributes:
        fault: description of the fault.
        outcomes: number of times of each outcome; outcomes that are not in `acceptable` are losses.
        acceptable: outcomes without a loss.
        examples: {outcome: text of one example} of the losses, for debugging.
    """

    fault: str
    outcomes: Counter[str] = field(default_factory=Counter)
    acceptable: tuple[str, ...] = (REPORTED, NO_EFFECT, RESUMED_EXACTLY)
    examples: dict[str, str] = field(default_factory=dict)

    def add(self, outcome: str, example: str = "") -> None:
        """Count one outcome.

        Args:
            outcome: description of the outcome.
            example: text that is stored if this is the first loss with this outcome.
        """
        self.outcomes[outcome] += 1
        if outcome not in self.acceptable:
            self.examples.setdefault(outcome, example)

    def __str__(self) -> str:
        lost = sum(count for key, count in self.outcomes.items() if key not in self.acceptable)
        results = ", ".join(f"{key}: {count}" for key, count in self.outcomes.most_common())
        return f"| {self.fault} | {self.outcomes.total()} | {lost} | {results} |"
