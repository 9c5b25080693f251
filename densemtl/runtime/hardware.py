"""Choices that depend on the hardware: autocast type and memory layout."""

from __future__ import annotations

import copy
import os
import platform
import time
import warnings
from collections.abc import Callable

import torch
from torch import Tensor, nn

from densemtl.distributed.collectives import all_gather_object
from densemtl.runtime.rng_state import get_rng_state, is_cuda_initialized, set_rng_state

X86 = ("x86_64", "AMD64")
"""Names of the x86 architecture on Linux, macOS and Windows."""

X86_BF16 = ("avx512_bf16", "amx_tile")
"""Instruction sets that compute bfloat16 products."""

LAYOUT_STEPS = 2
"""Steps that are timed for each memory layout."""

LAYOUT_MARGIN = 0.95
"""The contiguous layout is chosen only if its step takes less than this fraction of the time."""


def count_cores() -> int:
    """Return the number of CPU cores that this process may use."""
    has_affinity = hasattr(os, "sched_getaffinity")  # not on Windows and macOS
    return len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1


def has_native_bf16(device: torch.device) -> bool:
    """Return whether a device computes bfloat16 products in hardware.

    Args:
        device: a CPU or GPU.

    Returns:
        For CPUs, whether oneDNN uses bfloat16 instructions (AVX512_BF16, AMX, Arm BF16); older
        CPUs emulate them and are many times slower than with float32. For GPUs, whether CUDA
        reports support without emulation. False for other devices.
    """
    if device.type == "cuda":
        return bool(torch.cuda.is_bf16_supported(including_emulation=False))
    if device.type != "cpu":
        return False
    supported: bool = torch.ops.mkldnn._is_mkldnn_bf16_supported()
    return supported and (platform.machine() not in X86 or _has_x86_bf16())


def _has_x86_bf16() -> bool:
    """Return whether an x86 CPU has AVX512_BF16 or AMX.

    oneDNN reports support on every CPU with AVX-512, but without these it converts to float32.
    """
    checks = (getattr(torch.cpu, f"_is_{name}_supported", None) for name in X86_BF16)
    return any(check() for check in checks if check is not None)


def resolve_amp(amp: str, device: torch.device) -> str:
    """Return the autocast type for `train.amp`.

    Args:
        amp: "auto", or the name of an autocast type.
        device: device of the training.

    Returns:
        "bf16" or "none" for "auto", depending on the device; other values unchanged.

    Example:
        >>> resolve_amp("fp16", torch.device("cuda"))
        'fp16'
    """
    if amp != "auto":
        return amp
    return "bf16" if has_native_bf16(device) else "none"


def warn_if_emulated(amp: str, device: torch.device) -> None:
    """Warn if the autocast type is emulated on the device, which is slow.

    Args:
        amp: resolved value of `train.amp`.
        device: device of training or prediction.
    """
    if amp == "bf16" and not has_native_bf16(device):
        warnings.warn(
            f"train.amp=bf16: this {device.type.upper()} has no bfloat16 instructions and emulates"
            " them, which can be ten times slower; use amp=none, or train.amp=auto for new runs",
            RuntimeWarning,
            stacklevel=3,
        )


def choose_channels_last(
    model: nn.Module, image: Tensor, run_forward: Callable[[nn.Module, Tensor, bool], Tensor]
) -> tuple[bool, dict[str, float]]:
    """Measure which memory layout is faster for a training step, on a copy of the model.

    All ranks use the choice of the first. The weights and the states of the random number
    generators are not changed.

    Args:
        model: the model; it is copied.
        image: a batch of images, (B, 3, H, W).
        run_forward: function of (model, images, channels_last) that moves the model to its device
            and layout and returns a scalar to differentiate.

    Returns:
        Whether to use channels-last, and {layout: seconds per step}.
    """
    rng_state = get_rng_state()
    probe = copy.deepcopy(model).train()
    seconds = {True: float("inf"), False: float("inf")}
    for _ in range(LAYOUT_STEPS):
        for channels_last in seconds:
            started = _synchronized_time()
            run_forward(probe, image, channels_last).backward()  # type: ignore[no-untyped-call]
            seconds[channels_last] = min(seconds[channels_last], _synchronized_time() - started)
            probe.zero_grad(set_to_none=True)
    set_rng_state(rng_state)
    seconds = all_gather_object(seconds)[0]
    use_channels_last = seconds[False] >= LAYOUT_MARGIN * seconds[True]
    return use_channels_last, {"channels_last": seconds[True], "contiguous": seconds[False]}


def _synchronized_time() -> float:
    """Return the time in seconds after all work on the GPU is done."""
    if is_cuda_initialized():
        torch.cuda.synchronize()
    elif torch.backends.mps.is_available():
        torch.mps.synchronize()
    return time.perf_counter()
