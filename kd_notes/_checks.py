"""Every check of an input, and its message.

A public function settles its inputs here before it computes anything. What comes
back has one dtype and one batch shape; what cannot be used is refused with the
name of the argument, what it must be, and what came.
"""

from __future__ import annotations

import numbers
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
#: The type of one number of a result: `float` where every input was a plain
#: Python list or number, the NumPy scalar type of the promoted dtype elsewhere.
ScalarType: TypeAlias = type[float] | type[np.floating[Any]]

_FLOATS = (np.float16, np.float32, np.float64)


def as_logits(**named: ArrayLike) -> tuple[list[FloatArray], ScalarType]:
    """Return the named logits as floating arrays of one dtype and shape `(..., K)`.

    The dtype is the one to compute in; the scalar type is the one to answer in
    (they differ for float16 alone).
    """
    arrays = {name: _with_classes(name, value) for name, value in named.items()}
    return _settle(arrays), _scalar_type(arrays, *named.values())


def as_logit_pair(
    student_logits: ArrayLike, teacher_logits: ArrayLike
) -> tuple[list[FloatArray], ScalarType]:
    """Return both networks' logits in one shape, each in the dtype that it came in.

    Whoever computes with them converts them piece by piece: they may not fit in memory.
    """
    named = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    arrays = {name: _with_classes(name, value) for name, value in named.items()}
    return _in_one_shape(arrays), _scalar_type(arrays, *named.values())


def as_probabilities(**named: ArrayLike) -> tuple[list[FloatArray], ScalarType]:
    """Return the named distributions as `as_logits` does, each row checked."""
    arrays = {name: _with_classes(name, value) for name, value in named.items()}
    for name, array in arrays.items():
        _require_distribution(name, array)
    return _settle(arrays), _scalar_type(arrays, *named.values())


def as_logits_and_labels(
    labels_name: str, labels: ArrayLike, **named: ArrayLike
) -> tuple[list[FloatArray], ScalarType]:
    """Return the named logits and, last, the labels as distributions `(..., K)`.

    Integers with fewer axes than the logits are class indices; anything else is
    read as one distribution per example. Indices have no say in the dtype.
    """
    arrays = {name: _with_classes(name, value) for name, value in named.items()}
    scalar_type = _scalar_type(arrays, *named.values())
    indices = _real_array(labels_name, labels, integers=True)
    if _is_integer(indices) and indices.ndim < max(a.ndim for a in arrays.values()):
        num_classes = next(iter(arrays.values())).shape[-1]
        arrays[labels_name] = one_hot_rows(labels_name, indices, num_classes, scalar_type)
        return _settle(arrays, {labels_name: indices.shape}), scalar_type
    arrays[labels_name] = _with_classes(labels_name, labels)
    _require_distribution(labels_name, arrays[labels_name])
    return _settle(arrays), _scalar_type(arrays, *named.values(), labels)


def one_hot_rows(
    name: str, labels: NDArray[Any], num_classes: int, dtype: ScalarType
) -> FloatArray:
    """Return row `labels[...]` of the identity matrix for each class index."""
    outside = (labels < 0) | (labels >= num_classes)
    if outside.any():
        raise ValueError(
            f"{name} must be class indices in 0..{num_classes - 1}; "
            f"got {labels[outside].flat[0]} in an array of shape {labels.shape}"
        )
    rows = np.zeros((*labels.shape, num_classes), dtype)
    np.put_along_axis(rows, labels[..., np.newaxis].astype(np.intp), 1, axis=-1)
    return rows


def as_indices(name: str, labels: ArrayLike) -> NDArray[Any]:
    """Return class indices as an integer array."""
    array = _real_array(name, labels, integers=True)
    if not _is_integer(array):
        raise TypeError(f"{name} must be integer class indices; got dtype {array.dtype}")
    return array


def as_count(name: str, value: object) -> int:
    """Return a whole number of at least one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {value!r}")
    if value < 1:
        raise ValueError(f"{name} must be at least 1; got {value!r}")
    return int(value)


def as_temperature(value: float) -> float:
    """Return a temperature in `(0, inf]` as a Python float, which never promotes."""
    temperature = _real_number("temperature", value)
    if not temperature > 0:
        raise ValueError(f"temperature must be greater than 0 (inf is allowed); got {value!r}")
    return temperature


def as_alpha(value: float) -> float:
    """Return a weight in `[0, 1]` as a Python float."""
    alpha = _real_number("alpha", value)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1; got {value!r}")
    return alpha


def as_array(values: FloatArray, scalar_type: ScalarType) -> FloatArray:
    """Return computed values in the dtype of the answer."""
    with np.errstate(over="ignore"):  # float16 ends at 65504
        return values.astype(scalar_type, copy=False)


def as_result(values: FloatArray, scalar_type: ScalarType) -> Any:
    """Return computed losses in the dtype of the answer, that of one example as a number."""
    result = as_array(values, scalar_type)
    return result if result.ndim else scalar_type(result)


def require_out(out: FloatArray, shape: tuple[int, ...], dtype: Any, *inputs: FloatArray) -> None:
    """Refuse an `out` that cannot receive the result, or that is one of the inputs."""
    if not isinstance(out, np.ndarray):
        raise TypeError(f"out must be a NumPy array; got {type(out).__name__}")
    if out.shape != shape or out.dtype != np.dtype(dtype) or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable array of shape {shape} and dtype {np.dtype(dtype)}; "
            f"got shape {out.shape}, dtype {out.dtype}, writeable={out.flags.writeable}"
        )
    if any(np.may_share_memory(out, value) for value in inputs):
        raise ValueError("out must not share memory with the logits: inputs are never written to")


def _real_array(name: str, value: ArrayLike, *, integers: bool = False) -> NDArray[Any]:
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers; {error}") from None
    if _is_integer(array):
        return array if integers else array.astype(np.float64)
    if array.dtype.type not in _FLOATS:
        raise TypeError(
            f"{name} must hold real numbers (integers, float16, float32 or float64); "
            f"got dtype {array.dtype} with shape {array.shape}"
        )
    return array


def _is_integer(array: NDArray[Any]) -> bool:
    return array.dtype.kind in "biu"


def _real_number(name: str, value: float) -> float:
    is_number = isinstance(value, numbers.Real) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf"
    )
    if not is_number or isinstance(value, bool):
        raise TypeError(f"{name} must be a real number; got {value!r}")
    return float(value)


def _with_classes(name: str, value: ArrayLike) -> FloatArray:
    array = _real_array(name, value)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (..., K) with at least one class on its last axis; "
            f"got shape {array.shape}"
        )
    return array


def _require_distribution(name: str, array: FloatArray) -> None:
    """Refuse negative entries and rows that do not sum to one; nan rows pass."""
    if (array < 0).any():
        raise ValueError(
            f"{name} must be non-negative; got {np.nanmin(array)} in an array of "
            f"shape {array.shape}"
        )
    # Rounding K probabilities to their dtype moves their sum by at most this much.
    tolerance = 1e-2 if array.dtype == np.float16 else 1e-5
    totals = array.sum(axis=-1, dtype=np.float64)
    wrong = np.abs(totals - 1) > tolerance
    if wrong.any():
        raise ValueError(
            f"{name} must sum to 1 over the last axis (within {tolerance:g}); "
            f"got a sum of {totals[wrong].flat[0]:.6g} in an array of shape {array.shape}"
        )


def _settle(
    arrays: dict[str, FloatArray], came: dict[str, tuple[int, ...]] | None = None
) -> list[FloatArray]:
    """Bring arrays to one dtype, float32 or wider, and one shape."""
    dtype = np.result_type(np.float32, *(array.dtype for array in arrays.values()))
    cast = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
    return _in_one_shape(cast, came)


def _in_one_shape(
    arrays: dict[str, FloatArray], came: dict[str, tuple[int, ...]] | None = None
) -> list[FloatArray]:
    """Broadcast arrays against each other, without a copy.

    `came` has the shape that an array came with, where that is another.
    """
    shapes = {name: array.shape for name, array in arrays.items()} | (came or {})
    got = f"got shapes {' and '.join(map(str, shapes.values()))}"
    if len({array.shape[-1] for array in arrays.values()}) > 1:
        raise ValueError(
            f"{_list(arrays)} must have the same number of classes on the last axis; {got}"
        )
    try:
        shape = np.broadcast_shapes(*(array.shape for array in arrays.values()))
    except ValueError:
        raise ValueError(f"{_list(arrays)} must have batch shapes that broadcast; {got}") from None
    return [np.broadcast_to(array, shape) for array in arrays.values()]


def _scalar_type(arrays: dict[str, FloatArray], *values: ArrayLike) -> ScalarType:
    if not any(hasattr(value, "dtype") for value in values):
        return float
    scalar_type: ScalarType = np.result_type(*(a.dtype for a in arrays.values())).type
    return scalar_type


def _list(arrays: dict[str, FloatArray]) -> str:
    *first, last = arrays
    return f"{', '.join(first)} and {last}"
