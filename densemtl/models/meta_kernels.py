"""Fast passes of models on the meta device."""

from __future__ import annotations

from collections.abc import Hashable, Iterator
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_map_only


class _Layout(NamedTuple):
    shape: torch.Size
    strides: tuple[int, ...]
    dtype: torch.dtype

    @classmethod
    def of(cls, tensor: Tensor) -> _Layout:
        return cls(tensor.shape, tensor.stride(), tensor.dtype)

    def make_tensor(self) -> Tensor:
        return torch.empty_strided(self.shape, self.strides, dtype=self.dtype, device="meta")


class CachedMetaKernels(TorchDispatchMode):  # type: ignore[no-untyped-call, unused-ignore]
    """Compute the layout of the result of an operation once for all inputs of the same layouts.

    PyTorch implements many operations of the meta device in Python, as compositions of others: a
    batch normalization takes ten milliseconds, and models repeat layers. Views, in-place operations
    and operations on other devices run as usual. Autograd works above this mode, so that graphs and
    saved tensors are the same.
    """

    _results: ClassVar[dict[Hashable, Any]] = {}

    def __init__(self) -> None:
        super().__init__()  # type: ignore[no-untyped-call, unused-ignore]

    def __torch_dispatch__(
        self, func: Any, types: Any, args: Any = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        """Run an operation, or return tensors of the layouts that it returned before."""
        kwargs = kwargs or {}
        inputs = (args, tuple(kwargs.items()))
        devices = {tensor.device.type for tensor in _iter_tensors(inputs)}
        if _may_share_memory(func) or devices != {"meta"}:
            return func(*args, **kwargs)
        key = func, _make_key(inputs)
        if key not in self._results:
            self._results[key] = tree_map_only(Tensor, _Layout.of, func(*args, **kwargs))
        return _create(self._results[key])


def _iter_tensors(value: Any) -> Iterator[Tensor]:
    if isinstance(value, Tensor):
        yield value
    elif isinstance(value, (tuple, list)):
        for child in value:
            yield from _iter_tensors(child)


def _make_key(value: Any) -> Hashable:
    """Return what a result may depend on; 1, 1.0 and True give results of different types."""
    if isinstance(value, Tensor):
        return _Layout.of(value)
    if isinstance(value, (tuple, list)):
        return tuple(map(_make_key, value))
    return type(value), value


@cache
def _may_share_memory(func: Any) -> bool:
    """Return whether results may be views of inputs or inputs themselves."""
    schema = func._schema
    return any(value.alias_info for value in (*schema.arguments, *schema.returns))


def _create(result: Any) -> Any:
    if isinstance(result, _Layout):
        return result.make_tensor()
    if isinstance(result, tuple):
        return tuple(map(_create, result))
    return [*map(_create, result)] if isinstance(result, list) else result
