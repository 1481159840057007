"""Learning from labels: cross-entropy and its gradient (Eq. 1-3)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import FloatArray, Loss, Row, RowLabel, as_array, as_count, as_loss
from kd_notes._labels import as_indices, as_logits_and_labels, one_hot_rows
from kd_notes._softmax import log_softmax_rows, softmax_rows, weighted_sum

__all__ = ["cross_entropy_grad", "cross_entropy_loss", "one_hot"]


def one_hot(labels: ArrayLike, num_classes: int) -> FloatArray:
    """Return class indices as distributions with probability 1 on one class.

    Parameters
    ----------
    labels
        `(...)`, integers in 0..num_classes-1; booleans are 0 and 1. An empty list gives an
        empty result.
    num_classes
        K, at least 1.

    Returns
    -------
    float64 array `(..., K)`
        1 at the label, 0 elsewhere.

    Raises
    ------
    ValueError
        If a label is outside 0..num_classes-1, or `num_classes` is below 1.
    TypeError
        If the labels or the number of classes are not integers.

    Notes
    -----
    The hard label y of section 2.1 of the note :cite:p:`Che21`.

    Examples
    --------
    >>> from kd_notes import one_hot
    >>> one_hot([2, 0], num_classes=3)
    array([[0., 0., 1.],
           [1., 0., 0.]])
    """
    indices = as_indices("labels", labels)
    return one_hot_rows("labels", indices, as_count("num_classes", num_classes), float)


@overload
def cross_entropy_loss(logits: Row, labels: RowLabel) -> float: ...
@overload
def cross_entropy_loss(logits: ArrayLike, labels: ArrayLike) -> FloatArray: ...
def cross_entropy_loss(logits: ArrayLike, labels: ArrayLike) -> Loss:
    r"""Return the cross-entropy of softmax predictions under labels.

    Parameters
    ----------
    logits
        `(..., K)`; `-inf` excludes a class.
    labels
        Class indices `(...)` or distributions `(..., K)`. Integers with fewer axes than the
        logits are class indices. Floats are distributions, and those with fewer axes than
        the logits are the same for the whole batch; they are refused if all of them are whole
        numbers in the shape of class indices, because they could be either.

    Returns
    -------
    array `(...)`
        One loss per example, in nats; `inf` where the label is an excluded class. One example
        as a plain list gives a `float`; float16 logits give float32.

    Raises
    ------
    ValueError
        If shapes do not match, an index is outside 0..K-1, or a row is not a distribution.
    TypeError
        If an argument does not hold real numbers, or class indices are floats.

    Notes
    -----
    Eq. 1 of the note :cite:p:`Che21`, :math:`-\sum_i y_i \log p_i`, where a class with
    :math:`y_i = 0` contributes 0 even if its probability is 0.

    Examples
    --------
    The loss of a prediction near probability 1 keeps its digits:

    >>> from kd_notes import cross_entropy_loss
    >>> cross_entropy_loss([[2.0, 0.0], [50.0, 0.0]], labels=[0, 0])
    array([1.26928011e-01, 1.92874985e-22])
    """
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    return as_loss(cross_entropy_rows(z, y), scalar_type)


def cross_entropy_grad(logits: ArrayLike, labels: ArrayLike) -> FloatArray:
    r"""Return the gradient of `cross_entropy_loss` with respect to the logits.

    Parameters
    ----------
    logits, labels
        As `cross_entropy_loss`.

    Returns
    -------
    array `(..., K)`
        :math:`p_i - y_i`; each row sums to zero.

    Raises
    ------
    ValueError, TypeError
        As `cross_entropy_loss`.

    Notes
    -----
    Eq. 3 of the note :cite:p:`Che21`. Where the largest label is at least one half, its entry
    is computed as :math:`(1 - y_i) - \sum_{j \ne i} p_j`, so that the small gradient of a
    confident and correct prediction keeps its digits.

    Examples
    --------
    >>> from kd_notes import cross_entropy_grad
    >>> cross_entropy_grad([50.0, 0.0], labels=0)
    array([-1.92874985e-22,  1.92874985e-22])
    """
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    return as_array(cross_entropy_grad_rows(z, y), scalar_type)


def cross_entropy_rows(logits: FloatArray, labels: FloatArray) -> FloatArray:
    """Return Eq. 1 on checked arrays."""
    return weighted_sum(labels, 0 - log_softmax_rows(logits, 1.0))  # 0 - 0 is 0, but -0 is -0


def cross_entropy_grad_rows(logits: FloatArray, labels: FloatArray) -> FloatArray:
    """Return Eq. 3 on checked arrays, without the cancellation of `p - 1`."""
    p = softmax_rows(logits, 1.0)
    gradient = p - labels
    top = labels.argmax(axis=-1, keepdims=True)
    y = np.take_along_axis(labels, top, axis=-1)
    np.put_along_axis(p, top, 0, axis=-1)
    from_others = (1 - y) - p.sum(axis=-1, keepdims=True)
    at_top = np.take_along_axis(gradient, top, axis=-1)
    np.put_along_axis(gradient, top, np.where(y >= 0.5, from_others, at_top), axis=-1)
    return gradient
