"""Softer labels: label smoothing and the confidence penalty (Eq. 4-5)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import FloatArray, Loss, Row, RowLabel, as_alpha, as_array, as_loss
from kd_notes._cross_entropy import cross_entropy_grad_rows, cross_entropy_rows
from kd_notes._distillation import kd_grad_rows, kd_rows, mixture
from kd_notes._labels import as_logits_and_labels
from kd_notes._softmax import relative_to_top, softmax_rows

__all__ = [
    "confidence_penalty_grad",
    "confidence_penalty_loss",
    "label_smoothing_grad",
    "label_smoothing_loss",
]


@overload
def label_smoothing_loss(logits: Row, labels: RowLabel, alpha: float) -> float: ...
@overload
def label_smoothing_loss(logits: ArrayLike, labels: ArrayLike, alpha: float) -> FloatArray: ...
def label_smoothing_loss(logits: ArrayLike, labels: ArrayLike, alpha: float) -> Loss:
    r"""Return cross-entropy mixed with the divergence from uniform.

    Parameters
    ----------
    logits
        `(..., K)`; the uniform distribution is over the classes that are not excluded (`-inf`).
    labels
        Class indices `(...)` or distributions `(..., K)`, as `cross_entropy_loss`.
    alpha
        Weight of the uniform distribution, in [0, 1].

    Returns
    -------
    array `(...)`
        One loss per example, in nats. One example as a plain list gives a `float`; float16
        logits give float32.

    Raises
    ------
    ValueError
        If shapes do not match, a label is invalid, or alpha is outside [0, 1].
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Eq. 4 of the note :cite:p:`Che21`, :math:`(1-\alpha)\,\mathrm{CE}(y, p) +
    \alpha\,\mathrm{KL}(u, p)`. Cross-entropy on the smoothed label
    :math:`(1-\alpha) y + \alpha u` is larger by the constant :math:`\alpha \log K`.

    Examples
    --------
    >>> from kd_notes import label_smoothing_loss
    >>> round(label_smoothing_loss([2.0, 1.0, 0.0], labels=0, alpha=0.1), 6)
    0.397745
    """
    alpha = as_alpha(alpha)
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    hard = cross_entropy_rows(z, y)
    from_uniform = kd_rows(student=z, teacher=_uniform_logits(z))
    return as_loss(mixture(alpha, hard, from_uniform), scalar_type)


def label_smoothing_grad(logits: ArrayLike, labels: ArrayLike, alpha: float) -> FloatArray:
    r"""Return the gradient of `label_smoothing_loss` with respect to the logits.

    Parameters
    ----------
    logits, labels, alpha
        As `label_smoothing_loss`.

    Returns
    -------
    array `(..., K)`
        :math:`p_i - [(1-\alpha) y_i + \alpha / K]`; each row sums to zero.

    Raises
    ------
    ValueError, TypeError
        As `label_smoothing_loss`.

    Notes
    -----
    The gradient of Eq. 4 of the note :cite:p:`Che21`: Eq. 3 on the smoothed label. It is
    computed as :math:`(1-\alpha)(p_i - y_i) + \alpha (p_i - 1/K)`, and the second difference
    from the logits, because near the uniform distribution it would cancel.

    Examples
    --------
    >>> from kd_notes import label_smoothing_grad
    >>> label_smoothing_grad([0.0, 0.0], labels=0, alpha=0.5)
    array([-0.25,  0.25])
    """
    alpha = as_alpha(alpha)
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    hard = cross_entropy_grad_rows(z, y)
    from_uniform = kd_grad_rows(z, _uniform_logits(z), temperature=1.0, scaled=False)
    return as_array(mixture(alpha, hard, from_uniform), scalar_type)


@overload
def confidence_penalty_loss(logits: Row, labels: RowLabel, alpha: float) -> float: ...
@overload
def confidence_penalty_loss(logits: ArrayLike, labels: ArrayLike, alpha: float) -> FloatArray: ...
def confidence_penalty_loss(logits: ArrayLike, labels: ArrayLike, alpha: float) -> Loss:
    r"""Return cross-entropy mixed with the divergence to uniform.

    Parameters
    ----------
    logits
        `(..., K)`; the uniform distribution is over the classes that are not excluded (`-inf`).
    labels
        Class indices `(...)` or distributions `(..., K)`, as `cross_entropy_loss`.
    alpha
        Weight of the penalty, in [0, 1].

    Returns
    -------
    array `(...)`
        One loss per example, in nats. One example as a plain list gives a `float`; float16
        logits give float32.

    Raises
    ------
    ValueError, TypeError
        As `label_smoothing_loss`.

    Notes
    -----
    Eq. 5 of the note :cite:p:`Che21`, :math:`(1-\alpha)\,\mathrm{CE}(y, p) +
    \alpha\,\mathrm{KL}(p, u)`, where :math:`\mathrm{KL}(p, u) = \log K - H(p)`. It
    is not computed as that difference, which cancels near the uniform distribution.

    Examples
    --------
    >>> from kd_notes import confidence_penalty_loss
    >>> round(confidence_penalty_loss([2.0, 1.0, 0.0], labels=0, alpha=0.1), 6)
    0.393467
    """
    alpha = as_alpha(alpha)
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    hard = cross_entropy_rows(z, y)
    to_uniform = kd_rows(student=_uniform_logits(z), teacher=z)
    return as_loss(mixture(alpha, hard, to_uniform), scalar_type)


def confidence_penalty_grad(logits: ArrayLike, labels: ArrayLike, alpha: float) -> FloatArray:
    r"""Return the gradient of `confidence_penalty_loss` with respect to the logits.

    Parameters
    ----------
    logits, labels, alpha
        As `confidence_penalty_loss`.

    Returns
    -------
    array `(..., K)`
        Each row sums to zero.

    Raises
    ------
    ValueError, TypeError
        As `confidence_penalty_loss`.

    Notes
    -----
    The gradient of Eq. 5 of the note :cite:p:`Che21`,

    .. math:: (1-\alpha)(p_i - y_i) + \alpha\,p_i \Bigl(z_i - \sum_j p_j z_j\Bigr).

    Examples
    --------
    At the uniform distribution the gradient of the penalty is 0:

    >>> from kd_notes import confidence_penalty_grad
    >>> confidence_penalty_grad([0.0, 0.0], labels=0, alpha=1.0)
    array([0., 0.])
    """
    alpha = as_alpha(alpha)
    (z, y), scalar_type = as_logits_and_labels("labels", labels, logits=logits)
    hard = cross_entropy_grad_rows(z, y)
    gradient = mixture(alpha, hard, _negative_entropy_grad(z))
    return as_array(gradient, scalar_type)


def _uniform_logits(logits: FloatArray) -> FloatArray:
    """Return logits of the uniform distribution over the classes not excluded."""
    return np.where(logits == -np.inf, logits, 0)


def _negative_entropy_grad(logits: FloatArray) -> FloatArray:
    """Return the gradient of `-H(p)`, `p (z - sum p z)`.

    With `z - max z` in place of z, the mean under a p near one-hot is a sum of small terms,
    not a difference of large ones.
    """
    p = softmax_rows(logits, 1.0)
    z = np.where(p > 0, relative_to_top(logits, 1.0), 0)
    mean: FloatArray = (p * z).sum(axis=-1, keepdims=True)
    return p * (z - mean)
