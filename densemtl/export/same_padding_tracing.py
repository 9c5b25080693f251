"""Convolutions with "same" padding of TensorFlow in a form that torch traces with dynamic sizes.

timm computes the padding of each convolution from the size of its input, which torch cannot trace
within minutes if the size is dynamic. Exported models accept multiples of the size divisor of the
backbone only, so that the input of every strided convolution is divisible by its stride. Its
padding is then constant.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial

from timm.layers import Conv2dSame
from torch import Tensor, nn
from torch.nn import functional as F


@contextmanager
def patch_same_padding_for_export(network: nn.Module) -> Iterator[None]:
    """Replace the padding of all convolutions with "same" padding inside this context.

    Outputs do not change for inputs that are divisible by the stride of each convolution.

    Args:
        network: module that may contain timm's `Conv2dSame`.

    Yields:
        Nothing; the original methods are restored at the end.
    """
    convolutions = [module for module in network.modules() if type(module) is Conv2dSame]
    for convolution in convolutions:
        vars(convolution)["forward"] = partial(_convolve, convolution)
    try:
        yield
    finally:
        for convolution in convolutions:
            del vars(convolution)["forward"]


def _convolve(convolution: Conv2dSame, x: Tensor) -> Tensor:
    """Pad by a constant number of pixels and convolve, like the module's own method."""
    rows, columns = (
        max(dilation * (kernel - 1) + 1 - stride, 0)
        for kernel, stride, dilation in zip(
            convolution.kernel_size, convolution.stride, convolution.dilation, strict=True
        )
    )
    padded = F.pad(x, (columns // 2, columns - columns // 2, rows // 2, rows - rows // 2))
    return F.conv2d(
        padded,
        convolution.weight,
        convolution.bias,
        convolution.stride,
        0,
        convolution.dilation,
        convolution.groups,
    )
