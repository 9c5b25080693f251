"""Fast passes of models on the meta device."""

from __future__ import annotations

from collections.abc import Hashable
from functools import cache
from typing import Any, ClassVar, NamedTuple

import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_flatten, tree_map_only


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
        values, structure = tree_flatten((args, kwargs))
        if _may_share_memory(func) or not _are_on_meta(values):
            return func(*args, **kwargs)
        described = (_Layout.of(value) if isinstance(value, Tensor) else value for value in values)
        key = (func, structure, *((type(value), value) for value in described))
        if key not in self._results:
            self._results[key] = _describe(func(*args, **kwargs))
        return _create(self._results[key])


def _are_on_meta(values: list[Any]) -> bool:
    devices = {value.device.type for value in values if isinstance(value, Tensor)}
    return devices == {"meta"}


@cache
def _may_share_memory(func: Any) -> bool:
    """Return whether results may be views of inputs or inputs themselves."""
    schema = func._schema
    return any(value.alias_info for value in (*schema.arguments, *schema.returns))


def _describe(result: Any) -> Any:
    return tree_map_only(Tensor, _Layout.of, result)


def _create(result: Any) -> Any:
    if isinstance(result, _Layout):
        return result.make_tensor()
    if isinstance(result, tuple):
        return tuple(map(_create, result))
    return [*map(_create, result)] if isinstance(result, list) else result
