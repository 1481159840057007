"""Every check of an input, and its message.

A public function passes its inputs through here before it computes anything. The arrays
that it gets back have one dtype and one batch shape. An input that cannot be used raises
an error that names the argument, what it must be, and what was given.
"""

from __future__ import annotations

import math
import numbers
import sys
from collections.abc import Iterable, Sequence
from typing import Any, TypeAlias

import numpy as np
from numpy.typing import ArrayLike, NDArray

FloatArray: TypeAlias = NDArray[np.floating[Any]]
#: One example as a plain list or tuple, and its label: their loss is a `float`.
Row: TypeAlias = Sequence[float]
RowLabel: TypeAlias = int | np.integer[Any] | Row
#: A loss at run time. Annotations of public functions say `FloatArray` for the scalar of a
#: one-dimensional array too: it has the same methods.
Loss: TypeAlias = float | np.floating[Any] | FloatArray
#: The type of one number of a result: `float` where every input was a plain
#: Python list or number, the NumPy scalar type of the promoted dtype elsewhere.
ScalarType: TypeAlias = type[float] | type[np.floating[Any]]

_FLOATS = (np.float16, np.float32, np.float64)
TAILS = ("bucket", "renormalize")
LOG_NORMALIZER = (
    "teacher_log_normalizer, the log-sum-exp of all the teacher's logits / temperature"
)


def as_logits(**named: ArrayLike) -> tuple[list[FloatArray], ScalarType]:
    """Return the named logits as floating arrays of one dtype and shape `(..., K)`.

    The dtype is that of the computation, the scalar type that of the result. They differ
    for float16 alone, which is computed in float32.
    """
    arrays = {name: with_classes(name, value) for name, value in named.items()}
    return to_one_dtype_and_shape(arrays), result_type(arrays, *named.values())


def as_logit_pair(
    student_logits: ArrayLike, teacher_logits: ArrayLike
) -> tuple[list[FloatArray], ScalarType]:
    """Return both networks' logits in one shape, each in its own dtype.

    The caller converts them block by block: they may not fit in memory.
    """
    named = {"student_logits": student_logits, "teacher_logits": teacher_logits}
    arrays = {name: with_classes(name, value) for name, value in named.items()}
    return _to_one_shape(arrays), result_type(arrays, *named.values())


def as_probabilities(**named: ArrayLike) -> tuple[list[FloatArray], ScalarType]:
    """Return the named distributions as `as_logits` does, each row checked."""
    arrays = {name: with_classes(name, value) for name, value in named.items()}
    for name, array in arrays.items():
        require_distribution(name, array)
    return to_one_dtype_and_shape(arrays), result_type(arrays, *named.values())


def as_integer(name: str, value: object) -> int:
    """Return a Python or NumPy integer as a Python one."""
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise TypeError(f"{name} must be an integer; got {_described(value)}")
    return int(value)


def as_count(name: str, value: object) -> int:
    """Return an integer of at least one."""
    count = as_integer(name, value)
    if count < 1:
        raise ValueError(f"{name} must be at least 1; got {value!r}")
    return count


def as_flag(name: str, value: object) -> bool:
    """Return a Python or NumPy boolean as a Python one."""
    if not isinstance(value, bool | np.bool_):
        raise TypeError(f"{name} must be True or False; got {_described(value)}")
    return bool(value)


def as_temperature(value: float, name: str = "temperature") -> float:
    """Return a temperature in `(0, inf]` as a Python float, which never changes a dtype."""
    temperature = as_real_number(name, value)
    if not temperature > 0:
        raise ValueError(f"{name} must be greater than 0 (inf is allowed); got {value!r}")
    return temperature


def as_teacher_factor(teacher_temperature: float | None, temperature: float) -> float:
    """Return what the teacher's logits are multiplied by to have their own temperature."""
    if teacher_temperature is None:
        return 1.0
    own = as_temperature(teacher_temperature, "teacher_temperature")
    factor = 1.0 if own == temperature else temperature / own
    if temperature == factor == math.inf:
        raise ValueError(
            "temperature / teacher_temperature must be finite: times infinite temperature "
            "squared, the loss would be infinite for every teacher that is not uniform; "
            f"got {temperature} and {teacher_temperature!r}"
        )
    least, most = sys.float_info.min, sys.float_info.max
    if own < math.inf and not least <= factor <= most:
        raise ValueError(
            f"temperature / teacher_temperature must be between {least:.1e} and {most:.1e}; "
            f"got {temperature} and {teacher_temperature!r}"
        )
    return factor


def as_alpha(value: float) -> float:
    """Return a weight in `[0, 1]` as a Python float."""
    alpha = as_real_number("alpha", value)
    if not 0 <= alpha <= 1:
        raise ValueError(f"alpha must be between 0 and 1; got {value!r}")
    return alpha


def has_bucket(
    tail: str, temperature: float, scaled: bool, classes: tuple[int, int], is_normalized: bool
) -> bool:
    """Whether the teacher's other classes are one class; refuse if its mass is unknown."""
    if not (isinstance(tail, str) and tail in TAILS):
        raise ValueError(f"tail must be one of {[*TAILS]}; got {tail!r}")
    k, num_classes = classes
    if tail == "renormalize" or k == num_classes:
        return False
    if scaled and temperature == math.inf:
        raise ValueError(
            'temperature must be finite for tail="bucket" and scaled=True: the limit depends on '
            "the mean of the teacher's other logits, and the log-normalizer is log K whatever "
            f"they are; got {temperature} for {k} of {num_classes} classes"
        )
    if not is_normalized and temperature != 1:
        raise ValueError(
            f'for tail="bucket" at a temperature other than 1, pass {LOG_NORMALIZER}; '
            f"got None at temperature {temperature}"
        )
    return True


def require_mass(
    log_mass: FloatArray, tolerance: FloatArray, is_normalized: bool, shape: tuple[int, ...]
) -> None:
    """Refuse masses above 1, given the logarithms of n masses and of what rounding explains."""
    wrong = log_mass > tolerance
    if wrong.any():
        with np.errstate(over="ignore"):
            largest = np.exp(log_mass[wrong].max())
        raise ValueError(
            f"{mass_requirement(is_normalized)}; got a sum of {largest:.6g} "
            f"in a batch of shape {shape}"
        )


def mass_requirement(is_normalized: bool) -> str:
    """Return what is required of the teacher's values, with or without a log-normalizer."""
    if is_normalized:
        return (
            "the exponentials of teacher_values / temperature - teacher_log_normalizer must sum "
            f"to at most 1: pass {LOG_NORMALIZER}"
        )
    return (
        "the exponentials of teacher_values must sum to at most 1, as those of log-probabilities: "
        "those that were stored in half precision must be given in it, and "
        f"for logits, pass {LOG_NORMALIZER}"
    )


def as_array(values: FloatArray, scalar_type: ScalarType) -> FloatArray:
    """Return computed values in the dtype of the result."""
    with np.errstate(over="ignore"):  # above 65504
        return values.astype(scalar_type, copy=False)


def as_loss(values: FloatArray, scalar_type: ScalarType) -> Loss:
    """Return computed losses in the dtype of the result, that of one example as a number.

    Losses of float16 logits stay in float32: the largest number of float16 is 65504.
    """
    scalar_type = np.float32 if scalar_type is np.float16 else scalar_type
    return as_array(values, scalar_type) if values.ndim else scalar_type(values)


def require_out(out: FloatArray, shape: tuple[int, ...], dtype: Any, *inputs: FloatArray) -> None:
    """Refuse an `out` that cannot receive the result, or that shares memory with an input."""
    if not isinstance(out, np.ndarray) or isinstance(out, np.ma.MaskedArray):
        raise TypeError(f"out must be a NumPy array; got {type(out).__name__}")
    if out.shape != shape or out.dtype != np.dtype(dtype) or not out.flags.writeable:
        raise ValueError(
            f"out must be a writeable array of shape {shape} and dtype {np.dtype(dtype)}; "
            f"got shape {out.shape}, dtype {out.dtype}, writeable={out.flags.writeable}"
        )
    if _overlaps_itself(out):
        raise ValueError(
            "out must have entries that do not share memory with each other; "
            f"got shape {out.shape} with strides {out.strides}"
        )
    # Not `may_share_memory`, which also refuses an array interleaved with an input.
    if any(np.shares_memory(out, value) for value in inputs):
        raise ValueError("out must not share memory with the logits: inputs are never written to")


def real_array(name: str, value: ArrayLike, *, integers: bool = False) -> NDArray[Any]:
    """Return real numbers as an array: as floats, unless `integers` may stay integers."""
    if _is_masked(value):
        raise TypeError(
            f"{name} must not be masked; got a masked array: leave the masked entries out, "
            "or replace them by .filled(value)"
        )
    try:
        array = np.asarray(value)
    except ValueError as error:
        raise ValueError(f"{name} must be a rectangular array of numbers; {error}") from None
    if is_integer(array):
        return array if integers else array.astype(np.float64)
    if array.dtype.type not in _FLOATS:
        indices = " (class indices: dtype=int)" if integers else ""
        advice = f": convert it, from pandas by .to_numpy(dtype=float){indices}"
        raise TypeError(
            f"{name} must hold real numbers (integers, float16, float32 or float64); "
            f"got dtype {array.dtype} with shape {array.shape}"
            f"{advice if array.dtype == object else ''}"
        )
    return array


def is_integer(array: NDArray[Any]) -> bool:
    """Whether an array has an integer or boolean dtype."""
    return array.dtype.kind in "biu"


def with_classes(name: str, value: ArrayLike) -> FloatArray:
    """Return an array of floats that has a class axis and at least one class."""
    array = real_array(name, value)
    if array.ndim == 0 or array.shape[-1] == 0:
        raise ValueError(
            f"{name} must have shape (..., K) with at least one class on its last axis; "
            f"got shape {array.shape}"
        )
    return array


def require_distribution(name: str, array: FloatArray) -> None:
    """Refuse negative entries and rows that do not sum to one; rows with nan pass."""
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


def require_top_k(k: int, num_classes: int, indices: NDArray[Any]) -> None:
    """Refuse indices `(..., k)` that do not name k different classes in each row."""
    if indices.dtype == bool:
        raise TypeError(
            "teacher_indices must be integer class indices; got a mask, of dtype bool and shape "
            f"{indices.shape}"
        )
    if indices.shape[-1:] != (k,) or k > num_classes:
        raise ValueError(
            "teacher_values and teacher_indices must have the same number k of classes on the "
            f"last axis, and no more than student_logits; got k = {k}, teacher_indices of shape "
            f"{indices.shape}, and K = {num_classes}"
        )
    outside = (indices < 0) | (indices >= num_classes)
    if outside.any():
        raise ValueError(
            f"teacher_indices must be class numbers in 0..{num_classes - 1}; "
            f"got {indices[outside].flat[0]} in an array of shape {indices.shape}"
        )
    in_order = np.sort(indices, axis=-1)
    repeated = (in_order[..., 1:] == in_order[..., :-1]).any(axis=-1)
    if repeated.any():
        raise ValueError(
            "teacher_indices must be distinct within a row; "
            f"got {indices[repeated][0]} in an array of shape {indices.shape}"
        )


def as_rows(**named: NDArray[Any]) -> tuple[list[NDArray[Any]], tuple[int, ...]]:
    """Return arrays `(..., m)`, broadcast over the batch, as rows `(n, m)`, and its shape."""
    shapes = {name: array.shape for name, array in named.items()}
    batch = _batch_shape(shapes, shapes)
    rows = (np.broadcast_to(x, (*batch, x.shape[-1])) for x in named.values())
    return [x.reshape(-1, x.shape[-1]) for x in rows], batch


def as_log_normalizer(value: ArrayLike, shape: tuple[int, ...]) -> FloatArray:
    """Return log-normalizers as a column `(n, 1)`."""
    array = real_array("teacher_log_normalizer", value)
    try:
        return np.broadcast_to(array, shape).reshape(-1, 1)
    except ValueError:
        raise ValueError(
            f"teacher_log_normalizer must have the shape of the batch, {shape}, or one that "
            f"broadcasts to it; got shape {array.shape}"
        ) from None


def to_one_dtype_and_shape(
    arrays: dict[str, FloatArray], original_shapes: dict[str, tuple[int, ...]] | None = None
) -> list[FloatArray]:
    """Bring arrays to one dtype, float32 or wider, and one shape.

    An error names an array's original shape, where that differs from its present one.
    """
    dtype = np.result_type(np.float32, *(array.dtype for array in arrays.values()))
    cast = {name: array.astype(dtype, copy=False) for name, array in arrays.items()}
    return _to_one_shape(cast, original_shapes)


def result_type(arrays: dict[str, FloatArray], *values: ArrayLike) -> ScalarType:
    """Return the scalar type of the result, from the arrays and the inputs they were made from."""
    if not any(hasattr(value, "dtype") for value in values):
        return float
    scalar_type: ScalarType = np.result_type(*(a.dtype for a in arrays.values())).type
    return scalar_type


def _to_one_shape(
    arrays: dict[str, FloatArray], original_shapes: dict[str, tuple[int, ...]] | None = None
) -> list[FloatArray]:
    """Broadcast arrays against each other, without a copy."""
    if len({array.shape for array in arrays.values()}) == 1:
        return [*arrays.values()]
    shapes = {name: array.shape for name, array in arrays.items()} | (original_shapes or {})
    got = f"got shapes {' and '.join(map(str, shapes.values()))}"
    if len({array.shape[-1] for array in arrays.values()}) > 1:
        raise ValueError(
            f"{_enumerated(arrays)} must have the same number of classes on the last axis; {got}"
        )
    batch = _batch_shape({name: array.shape for name, array in arrays.items()}, shapes)
    return [np.broadcast_to(array, (*batch, array.shape[-1])) for array in arrays.values()]


def _batch_shape(
    shapes: dict[str, tuple[int, ...]], original_shapes: dict[str, tuple[int, ...]]
) -> tuple[int, ...]:
    """Return what shapes broadcast to without their last axes; an error names the original."""
    try:
        return np.broadcast_shapes(*(shape[:-1] for shape in shapes.values()))
    except ValueError:
        raise ValueError(
            f"{_enumerated(shapes)} must have batch shapes that broadcast; "
            f"got shapes {' and '.join(map(str, original_shapes.values()))}"
        ) from None


def as_real_number(name: str, value: float) -> float:
    is_number = isinstance(value, numbers.Real) or (
        isinstance(value, np.ndarray) and value.ndim == 0 and value.dtype.kind in "iuf"
    )
    if not is_number or isinstance(value, bool | np.ma.MaskedArray):
        raise TypeError(f"{name} must be a real number; got {_described(value)}")
    try:
        number = float(value)
    except OverflowError:
        number = math.inf
    if abs(number) == math.inf and value != number:  # `torch.compile` cannot trace isinf
        raise ValueError(
            f"{name} must fit in a float, whose largest finite value is "
            f"{sys.float_info.max:.3g}; got a larger {type(value).__name__}"
        )
    return number


def _described(value: object) -> str:
    if isinstance(value, np.ndarray):
        kind = "a masked array" if isinstance(value, np.ma.MaskedArray) else "an array"
        return f"{kind} of shape {value.shape} and dtype {value.dtype}"
    return repr(value)


def _is_masked(value: object) -> bool:
    """Whether a value is a masked array, or a nested list with one inside."""
    if isinstance(value, list | tuple):
        # The types first: a list of numbers is common, and a call for each would be slow.
        return not set(map(type, value)) <= {float, int} and any(map(_is_masked, value))
    return isinstance(value, np.ma.MaskedArray)


def _overlaps_itself(array: NDArray[Any]) -> bool:
    """Whether entries share memory, as with a stride of 0 or in a sliding window.

    They do not if each stride, from the smallest up, exceeds what the axes before it span.
    """
    span = array.itemsize
    for stride, length in sorted(zip(map(abs, array.strides), array.shape, strict=True)):
        if length > 1 and array.size:
            if stride < span:
                return True
            span += stride * (length - 1)
    return False


def _enumerated(names: Iterable[str]) -> str:
    *first, last = names
    return f"{', '.join(first)} and {last}"
