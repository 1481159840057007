"""Labels as class indices or as distributions, and the checks that distinguish them."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kd_notes._checks import (
    FloatArray,
    ScalarType,
    is_integer,
    real_array,
    require_distribution,
    result_type,
    to_one_dtype_and_shape,
    with_classes,
)


def as_logits_and_labels(
    labels_name: str, labels: ArrayLike, **named: ArrayLike
) -> tuple[list[FloatArray], ScalarType]:
    """Return the named logits and, last, the labels as distributions `(..., K)`.

    Integers with fewer axes than the logits are class indices, and so is an empty list.
    Other labels are distributions. Labels that could be either are refused. Class indices
    have no influence on the dtype.
    """
    arrays = {name: with_classes(name, value) for name, value in named.items()}
    scalar_type = result_type(arrays, *named.values())
    array = _as_labels(labels_name, labels)
    if _are_indices(labels_name, array, *(a.shape for a in arrays.values())):
        num_classes = next(iter(arrays.values())).shape[-1]
        arrays[labels_name] = one_hot_rows(labels_name, array, num_classes, scalar_type)
        return to_one_dtype_and_shape(arrays, {labels_name: array.shape}), scalar_type
    arrays[labels_name] = with_classes(labels_name, labels)
    require_distribution(labels_name, arrays[labels_name])
    return to_one_dtype_and_shape(arrays), result_type(arrays, *named.values(), labels)


def as_indices(name: str, labels: ArrayLike) -> NDArray[Any]:
    """Return class indices as an integer array."""
    array = _as_labels(name, labels)
    if not is_integer(array):
        raise TypeError(
            f"{name} must be integer class indices; got dtype {array.dtype} with shape "
            f"{array.shape}: convert whole numbers by .astype(int)"
        )
    return array


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


def _as_labels(name: str, labels: ArrayLike) -> NDArray[Any]:
    """Return labels as an array; an empty list holds class indices, as in NumPy's indexing."""
    array = real_array(name, labels, integers=True)
    return array if array.size or hasattr(labels, "dtype") else array.astype(np.intp)


def _are_indices(name: str, labels: NDArray[Any], *logits_shapes: tuple[int, ...]) -> bool:
    """Whether labels are class indices for logits of these shapes, and not distributions."""
    axes = sorted(map(len, logits_shapes))
    can_be_distributions = labels.shape[-1:] == logits_shapes[0][-1:]
    if is_integer(labels):
        if axes[0] <= labels.ndim < axes[-1] and can_be_distributions:
            raise ValueError(
                f"{name} of dtype {labels.dtype} and shape {labels.shape} could be class indices "
                f"or distributions for logits of shapes {' and '.join(map(str, logits_shapes))}"
                ": give distributions as floats, or all logits the same number of axes"
            )
        return labels.ndim < axes[-1]
    can_be_indices = not can_be_distributions or any(
        labels.shape == shape[-1 - labels.ndim : -1] for shape in logits_shapes
    )
    if labels.ndim < axes[0] and can_be_indices and (labels == np.floor(labels)).all():
        raise TypeError(
            f"{name} must be integer class indices (...) or distributions (..., K); got whole "
            f"numbers of dtype {labels.dtype} with shape {labels.shape}: convert class indices "
            "by .astype(int), or give a distribution as many axes as the logits"
        )
    return False
