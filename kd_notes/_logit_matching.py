"""Logit matching, and the regularized form that distillation tends to (Eq. 6, 11-12)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import FloatArray, Loss, Row, as_array, as_logit_pair, as_loss

__all__ = [
    "logit_matching_grad",
    "logit_matching_loss",
    "regularized_logit_matching_grad",
    "regularized_logit_matching_loss",
]


@overload
def logit_matching_loss(student_logits: Row, teacher_logits: Row) -> float: ...
@overload
def logit_matching_loss(student_logits: ArrayLike, teacher_logits: ArrayLike) -> FloatArray: ...
def logit_matching_loss(student_logits: ArrayLike, teacher_logits: ArrayLike) -> Loss:
    r"""Return half the mean squared difference of the logits.

    Parameters
    ----------
    student_logits, teacher_logits
        `(..., K)`. A class that both exclude (`-inf`) is left out and not counted in K;
        a class that only one of them excludes makes the loss `inf`.

    Returns
    -------
    array `(...)`
        One loss per example. Two plain lists give a `float`; float16 gives float32.

    Raises
    ------
    ValueError
        If the shapes do not match or K is 0.
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Eq. 6 of the note :cite:p:`Che21`, :math:`\frac{1}{2K} \sum_i (z_i^t - z_i^s)^2`.

    Examples
    --------
    >>> from kd_notes import logit_matching_loss
    >>> logit_matching_loss([3.0, 1.0], [1.0, 1.0])
    1.0
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    difference, num_classes = _difference(student, teacher)
    return as_loss(_half_mean_square(difference, num_classes), scalar_type)


def logit_matching_grad(student_logits: ArrayLike, teacher_logits: ArrayLike) -> FloatArray:
    r"""Return the gradient of `logit_matching_loss` with respect to the student's logits.

    Parameters
    ----------
    student_logits, teacher_logits
        As `logit_matching_loss`.

    Returns
    -------
    array `(..., K)`
        :math:`(z_i^s - z_i^t) / K`; 0 for a class that both exclude.

    Raises
    ------
    ValueError, TypeError
        As `logit_matching_loss`.

    Notes
    -----
    The gradient given below Eq. 6 of the note :cite:p:`Che21`.

    Examples
    --------
    >>> from kd_notes import logit_matching_grad
    >>> logit_matching_grad([3.0, 1.0], [1.0, 1.0])
    array([1., 0.])
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    difference, num_classes = _difference(student, teacher)
    return as_array(difference / num_classes, scalar_type)


@overload
def regularized_logit_matching_loss(student_logits: Row, teacher_logits: Row) -> float: ...
@overload
def regularized_logit_matching_loss(
    student_logits: ArrayLike, teacher_logits: ArrayLike
) -> FloatArray: ...
def regularized_logit_matching_loss(student_logits: ArrayLike, teacher_logits: ArrayLike) -> Loss:
    r"""Return half the variance of the logit differences.

    Parameters
    ----------
    student_logits, teacher_logits
        As `logit_matching_loss`.

    Returns
    -------
    array `(...)`
        One loss per example. Two plain lists give a `float`; float16 gives float32.

    Raises
    ------
    ValueError, TypeError
        As `logit_matching_loss`.

    Notes
    -----
    Eq. 12 of the note :cite:p:`Che21` with its constant equal to 0. The regularization
    subtracts the mean of :math:`D = z^s - z^t`, and the loss is
    :math:`\tfrac12 \operatorname{Var}(D)` over the classes. It is the limit of
    :math:`\tau^2` times the KD loss at infinite temperature: `kd_loss` with
    `temperature=np.inf`.

    Examples
    --------
    A constant added to all logits of one network does not change the loss:

    >>> from kd_notes import regularized_logit_matching_loss
    >>> regularized_logit_matching_loss([3.0, 1.0], [1.0, 1.0])
    0.5
    >>> regularized_logit_matching_loss([7.0, 5.0], [1.0, 1.0])
    0.5
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    centered, num_classes = _centered_difference(student, teacher)
    return as_loss(_half_mean_square(centered, num_classes), scalar_type)


def regularized_logit_matching_grad(
    student_logits: ArrayLike, teacher_logits: ArrayLike
) -> FloatArray:
    r"""Return the gradient of `regularized_logit_matching_loss`.

    Parameters
    ----------
    student_logits, teacher_logits
        As `logit_matching_loss`.

    Returns
    -------
    array `(..., K)`
        :math:`(D_i - \bar D) / K` with :math:`D = z^s - z^t` and its mean
        :math:`\bar D`; each row sums to zero.

    Raises
    ------
    ValueError, TypeError
        As `logit_matching_loss`.

    Notes
    -----
    Eq. 11 of the note :cite:p:`Che21`, with respect to the student's logits.

    Examples
    --------
    >>> from kd_notes import regularized_logit_matching_grad
    >>> regularized_logit_matching_grad([3.0, 1.0], [1.0, 1.0])
    array([ 0.5, -0.5])
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    centered, num_classes = _centered_difference(student, teacher)
    return as_array(centered / num_classes, scalar_type)


def _difference(student: FloatArray, teacher: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return `D = z^s - z^t`, 0 where both exclude the class, and K without those.

    K is nan for a row whose classes are all excluded.
    """
    excluded = (student == -np.inf) & (teacher == -np.inf)
    with np.errstate(invalid="ignore", over="ignore"):  # -inf - -inf, replaced below
        dtype = np.result_type(np.float32, student, teacher)
        # In C order NumPy adds up a row pairwise, which keeps the error of a long one small.
        difference: FloatArray = np.subtract(student, teacher, dtype=dtype, order="C")
    difference[excluded] = 0
    num_classes = (~excluded).sum(axis=-1, keepdims=True, dtype=difference.dtype)
    return difference, np.where(num_classes == 0, np.nan, num_classes)


def _centered_difference(
    student: FloatArray, teacher: FloatArray
) -> tuple[FloatArray, FloatArray]:
    """Return `D - mean(D)` and K; infinite entries of D stay out of the mean."""
    difference, num_classes = _difference(student, teacher)
    excluded = (student == -np.inf) & (teacher == -np.inf)
    finite = ~np.isinf(difference)
    with np.errstate(over="ignore"):
        mean = difference.sum(axis=-1, keepdims=True, where=finite) / num_classes
        np.subtract(difference, mean, out=difference, where=finite & ~excluded)
    return difference, num_classes


def _half_mean_square(difference: FloatArray, num_classes: FloatArray) -> FloatArray:
    with np.errstate(over="ignore"):
        half_squares: FloatArray = difference**2 / (2 * num_classes)
        total: FloatArray = half_squares.sum(axis=-1)
    return total
