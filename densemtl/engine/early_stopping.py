"""End of the training when validations no longer improve."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from densemtl.config.sections import EarlyStoppingConfig
from densemtl.distributed.collectives import all_gather_object
from densemtl.engine.model_selection import SelectionScores, compute_mean_gain
from densemtl.tasks.base import Task


@dataclass
class Patience:
    """State of early stopping, saved in checkpoints.

    Attributes:
        scores: selection scores of the last validation that was an improvement; None before the
            first validation.
        step: number of finished optimizer steps at that validation.
        waited: number of validations since then.
    """

    scores: SelectionScores | None = None
    step: int = 0
    waited: int = 0


def update_patience(
    patience: Patience,
    config: EarlyStoppingConfig,
    scores: SelectionScores,
    step: int,
    tasks: Sequence[Task],
) -> str:
    """Compare a validation with the last improvement, and decide whether to end the training.

    Scores are compared as in the selection of the best weights. Small gains below `min_delta` add
    up: they are compared with the last validation that was an improvement.

    Args:
        patience: the state, which is updated.
        config: the section `train.early_stopping` of the configuration.
        scores: selection scores of the validation.
        step: number of finished optimizer steps.
        tasks: the tasks that are evaluated.

    Returns:
        The reason to end the training, the same on all ranks; "" to continue.
    """
    if compute_mean_gain(scores, patience.scores, tasks) > config.min_delta:
        patience.scores, patience.step, patience.waited = scores, step, 0
    else:
        patience.waited += 1
    reason = ""
    if patience.waited >= config.patience:
        gain = f" by more than {config.min_delta:g}" if config.min_delta else ""
        validations = f"{patience.waited} validation" + ("s" if patience.waited > 1 else "")
        reason = f"no improvement{gain} in {validations} from step {patience.step} to {step}"
    return str(all_gather_object(reason)[0])
