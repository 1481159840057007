"""The array libraries that a loss may be written for: NumPy, and PyTorch if it is there."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from importlib.util import find_spec
from typing import Any, NamedTuple, Protocol

import numpy as np
from numpy.typing import NDArray

from kd_notes._checks import FloatArray

Call = Callable[[Any, Any], Any]


class Gradients(NamedTuple):
    """Derivatives of the sum of the loss, None for an argument that gets none."""

    first: FloatArray | None
    second: FloatArray | None


class Backend(Protocol):
    """How arrays of one library are made, read and differentiated."""

    @property
    def name(self) -> str: ...
    @property
    def dtypes(self) -> tuple[str, ...]: ...

    def array(self, values: NDArray[Any], dtype: str) -> Any: ...
    def read(self, result: Any) -> FloatArray: ...
    def rounded(self, values: FloatArray, dtype: str) -> FloatArray: ...
    def gradients(self, call: Call, first: Any, second: Any) -> Gradients | None: ...


NO_NUMBERS = "cSUmM"  # of NumPy's kinds of dtypes: complex numbers, texts and times


class OutputError(Exception):
    """What a loss returned is no number and no array of numbers."""


class NumPy:
    """Plain arrays, and no gradient but what a caller gives."""

    name = "numpy"
    dtypes = ("float64", "float32", "float16")

    def array(self, values: NDArray[Any], dtype: str) -> Any:
        return values.astype(dtype) if values.dtype.kind == "f" else values.copy()

    def read(self, result: Any) -> FloatArray:
        try:
            if result is None or isinstance(result, tuple):
                raise TypeError
            values = np.asarray(result)
            if values.dtype.kind in NO_NUMBERS:
                raise TypeError
            return values.astype(float)
        except (TypeError, ValueError):  # of a dictionary, or of lists of several lengths
            message = f"it returns {_described(result)} and no real number or array"
            raise OutputError(message) from None

    def rounded(self, values: FloatArray, dtype: str) -> FloatArray:
        return values.astype(dtype).astype(float)

    def gradients(self, call: Call, first: Any, second: Any) -> Gradients | None:
        return None


class PyTorch:
    """Tensors on the CPU, differentiated by autograd."""

    name = "torch"
    dtypes = ("float64", "float32", "bfloat16", "float16")

    def __init__(self) -> None:
        import torch

        self.torch: Any = torch

    def array(self, values: NDArray[Any], dtype: str) -> Any:
        tensor = self.torch.from_numpy(np.array(values))
        return tensor.to(getattr(self.torch, dtype)) if values.dtype.kind == "f" else tensor

    def read(self, result: Any) -> FloatArray:
        if not isinstance(result, self.torch.Tensor):
            if isinstance(result, list):  # of tensors, of which autograd takes none
                raise OutputError("it returns a list and no tensor")
            return NumPy().read(result)
        if result.is_complex():
            raise OutputError(f"it returns a tensor of {result.dtype} and no real number or array")
        values: FloatArray = result.detach().double().numpy()
        return values

    def rounded(self, values: FloatArray, dtype: str) -> FloatArray:
        return self.read(self.array(values, dtype))

    def gradients(self, call: Call, first: Any, second: Any) -> Gradients | None:
        first.requires_grad_(True)
        second.requires_grad_(True)
        value = call(first, second)
        if not getattr(value, "requires_grad", False):  # a number of Python has no graph
            return Gradients(None, None)
        value = value.sum()
        found = self.torch.autograd.grad(value, [first, second], allow_unused=True)
        return Gradients(*(None if grad is None else self.read(grad) for grad in found))


def _described(result: Any) -> str:
    if result is None:
        return "None"
    entries = f" of {result.dtype}" if isinstance(result, np.ndarray) else ""
    return f"a {type(result).__name__}{entries}"


def backends(name: str | None) -> Iterator[Backend]:
    """Yield the backend of a name, or all that are installed, NumPy first.

    Most functions of PyTorch refuse a NumPy array, while many of NumPy's accept a tensor.
    """
    if name not in (None, "numpy", "torch"):
        raise ValueError(f"backend must be 'numpy', 'torch' or None; got {name!r}")
    if name != "torch":
        yield NumPy()
    if name == "torch" or (name is None and find_spec("torch")):
        yield PyTorch()
