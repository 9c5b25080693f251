"""Log-probabilities of classes that exist only where a gate is open, over all pixels.

The first class stands for a closed gate. The probability of another class is the probability of the
gate times that of the class under the gate, as in the entire-space model of Ma et al., SIGIR 2018.
"""

from __future__ import annotations

from collections.abc import Collection

import torch
from torch import Tensor
from torch.nn import functional as F

from densemtl.ops.resize import get_size, resize


def gate_by_logit(logits: Tensor) -> Tensor:
    """Compute the log-probabilities of classes under a gate with a logit of its own.

    Args:
        logits: logit of the gate, followed by those of the classes under it, shape (B, C, H, W).

    Returns:
        Log-probabilities of all classes, same shape, in float32 or better.

    Example:
        >>> import torch
        >>> gate_by_logit(torch.zeros(1, 3, 1, 1)).exp().flatten()
        tensor([0.5000, 0.2500, 0.2500])
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    gate = logits[:, :1]
    return _combine(F.logsigmoid(-gate), F.logsigmoid(gate), logits)


def gate_by_classes(logits: Tensor, host_logits: Tensor, classes: Collection[int]) -> Tensor:
    """Compute the log-probabilities of classes under a gate that is given by another task.

    Args:
        logits: an unused channel, followed by the logits of the classes under the gate, shape
            (B, C, H, W).
        host_logits: logits of the classes of the other task, shape (B, K, H, W).
        classes: ids of the classes of the other task for which the gate is open; some, but not all.

    Returns:
        Log-probabilities of all classes, shape (B, C, H, W), in float32 or better.
    """
    logits = logits.to(torch.promote_types(logits.dtype, torch.float32))
    host = host_logits.to(logits.dtype)
    opened, closed = _split(host, classes)
    total = host.logsumexp(dim=1, keepdim=True)
    return _combine(closed - total, opened - total, logits)


def compute_log_odds(host_logits: Tensor, classes: Collection[int]) -> Tensor:
    """Compute the log-odds of some of the classes of a task.

    Args:
        host_logits: logits of the classes, shape (B, K, H, W).
        classes: ids of some of the classes, but not of all.

    Returns:
        The logit of their joint probability, shape (B, 1, H, W), in float32 or better.

    Example:
        >>> import torch
        >>> compute_log_odds(torch.tensor([0.0, 2.0]).view(1, 2, 1, 1), [1]).flatten()
        tensor([2.])
    """
    host = host_logits.to(torch.promote_types(host_logits.dtype, torch.float32))
    opened, closed = _split(host, classes)
    return opened - closed


def match_host_logits(host_logits: Tensor, logits: Tensor, *, detach: bool) -> Tensor:
    """Bring the logits of another task to the size of those of a task.

    Args:
        host_logits: logits of the other task, shape (B, K, h, w).
        logits: logits of the task, shape (B, C, H, W).
        detach: whether no gradient reaches the logits of the other task.

    Returns:
        Logits of the other task, shape (B, K, H, W).
    """
    host = host_logits.detach() if detach else host_logits
    size = get_size(logits)
    return host if get_size(host) == size else resize(host, size)


def find_classes(target: Tensor, classes: Collection[int]) -> Tensor:
    """Find the pixels that are labeled as one of some classes.

    Args:
        target: class ids, shape (B, H, W).
        classes: ids of the classes.

    Returns:
        Bool mask of the same shape.

    Example:
        >>> import torch
        >>> find_classes(torch.tensor([[[0, 3, 255, 5]]]), [3, 5])
        tensor([[[False,  True, False,  True]]])
    """
    found = torch.zeros_like(target, dtype=torch.bool)
    for class_id in classes:
        found |= target == class_id
    return found


def _split(host: Tensor, classes: Collection[int]) -> tuple[Tensor, Tensor]:
    """Return the logarithms of the sums of exponentials of the given and of the other classes."""
    opens = [host[:, id_ : id_ + 1] for id_ in sorted(classes)]
    others = [host[:, id_ : id_ + 1] for id_ in range(host.shape[1]) if id_ not in classes]
    opened, closed = (torch.cat(maps, dim=1).logsumexp(1, keepdim=True) for maps in (opens, others))
    return opened, closed


def _combine(log_closed: Tensor, log_open: Tensor, logits: Tensor) -> Tensor:
    return torch.cat([log_closed, log_open + F.log_softmax(logits[:, 1:], dim=1)], dim=1)
