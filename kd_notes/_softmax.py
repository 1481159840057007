"""Softmax with temperature, its logarithm, its Jacobian, and entropy (Eq. 2, 7, 9)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import (
    FloatArray,
    Loss,
    Row,
    as_array,
    as_logits,
    as_loss,
    as_probabilities,
    as_temperature,
)

__all__ = ["entropy", "log_softmax", "softmax", "softmax_jacobian"]


def softmax(logits: ArrayLike, temperature: float = 1.0) -> FloatArray:
    r"""Return the class probabilities of logits at a temperature.

    Parameters
    ----------
    logits
        `(..., K)`; `-inf` excludes a class.
    temperature
        Greater than 0, `inf` allowed.

    Returns
    -------
    array `(..., K)`
        Non-negative, each row summing to one.

    Raises
    ------
    ValueError
        If the logits have no class axis or no class, or the temperature is not above 0.
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Eq. 7 of the note :cite:p:`Che21`, :math:`p_i = e^{z_i/\tau} / \sum_j e^{z_j/\tau}`. As
    :math:`\tau \to \infty` it tends to the uniform distribution over the classes that
    are not excluded, which is what `temperature=np.inf` returns; as
    :math:`\tau \to 0`, to the top class.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import softmax
    >>> softmax([2.0, 1.0, 0.0]).round(3)
    array([0.665, 0.245, 0.09 ])
    >>> softmax([2.0, 1.0, 0.0], temperature=5).round(3)
    array([0.402, 0.329, 0.269])
    >>> softmax([2000.0, -np.inf, 1000.0], temperature=np.inf)
    array([0.5, 0. , 0.5])
    """
    (logits,), scalar_type = as_logits(logits=logits)
    return as_array(softmax_rows(logits, as_temperature(temperature)), scalar_type)


def log_softmax(logits: ArrayLike, temperature: float = 1.0) -> FloatArray:
    r"""Return the logarithm of `softmax`, accurate also where a probability is near 1.

    Parameters
    ----------
    logits
        `(..., K)`; `-inf` excludes a class.
    temperature
        Greater than 0, `inf` allowed.

    Returns
    -------
    array `(..., K)`
        Log-probabilities in nats; `-inf` for an excluded class.

    Raises
    ------
    ValueError, TypeError
        As `softmax`.

    Notes
    -----
    :math:`\log p_i = z_i/\tau - \log \sum_j e^{z_j/\tau}`, the logarithm of Eq. 7
    of the note :cite:p:`Che21`. The term of the top class is 1 and is added by `log1p`, so
    that the logarithm of a probability near 1 keeps its digits.

    The relative error of an entry is at most :math:`4\,\varepsilon\,(1 + \kappa)`, where
    :math:`\varepsilon` is the spacing of the dtype at 1 and :math:`\kappa = \sum_j |z_j\,
    \partial \log p_i / \partial z_j| / |\log p_i|` is the entry's condition number: how much
    a relative change of the logits is magnified. For a probability near 1, :math:`\kappa`
    is about the sum of the absolute values of the two largest logits over :math:`\tau`.

    Examples
    --------
    >>> from kd_notes import log_softmax, softmax
    >>> import numpy as np
    >>> log_softmax([50.0, 0.0])
    array([-1.92874985e-22, -5.00000000e+01])
    >>> with np.errstate(divide="ignore"):
    ...     np.log(softmax([50.0, 0.0]))
    array([  0., -50.])
    """
    (logits,), scalar_type = as_logits(logits=logits)
    return as_array(log_softmax_rows(logits, as_temperature(temperature)), scalar_type)


def softmax_jacobian(logits: ArrayLike, temperature: float = 1.0) -> FloatArray:
    r"""Return the derivative of every probability with respect to every logit.

    Parameters
    ----------
    logits
        `(..., K)`; `-inf` excludes a class.
    temperature
        Greater than 0; at `inf` the Jacobian is 0.

    Returns
    -------
    array `(..., K, K)`
        Entry `[..., j, i]` is :math:`\partial p_j / \partial z_i`. It is symmetric, and
        its rows sum to zero: adding a constant to all logits changes no probability.

    Raises
    ------
    ValueError, TypeError
        As `softmax`.

    Notes
    -----
    Eq. 9 of the note :cite:p:`Che21` (Eq. 2 at temperature 1),
    :math:`\frac{1}{\tau}(\operatorname{diag} p - p p^{\mathsf T})`. The diagonal
    :math:`p_j (1 - p_j)` is computed as minus the sum of the other entries of its row,
    because :math:`1 - p_j` would cancel where :math:`p_j` is near 1.

    Examples
    --------
    >>> from kd_notes import softmax_jacobian
    >>> softmax_jacobian([0.0, 0.0], temperature=2)
    array([[ 0.125, -0.125],
           [-0.125,  0.125]])
    """
    (logits,), scalar_type = as_logits(logits=logits)
    temperature = as_temperature(temperature)
    p = softmax_rows(logits, temperature)
    temperature = _not_rounded_to_zero(temperature, p)
    jacobian = p[..., :, np.newaxis] * p[..., np.newaxis, :] / temperature
    diagonal = np.einsum("...jj->...j", jacobian)
    diagonal[...] = 0
    diagonal[...] = -jacobian.sum(axis=-1)
    return as_array(0 - jacobian, scalar_type)  # 0 - 0 is 0, but -0 is -0


@overload
def entropy(probabilities: Row) -> float: ...
@overload
def entropy(probabilities: ArrayLike) -> FloatArray: ...
def entropy(probabilities: ArrayLike) -> Loss:
    r"""Return the Shannon entropy of a distribution.

    Parameters
    ----------
    probabilities
        `(..., K)`, non-negative, each row summing to one.

    Returns
    -------
    array `(...)`
        In nats, between 0 (one class has probability 1) and log K (uniform). A plain list
        gives a `float`; float16 gives float32.

    Raises
    ------
    ValueError
        If an entry is negative or a row does not sum to one.
    TypeError
        If the argument does not hold real numbers.

    Notes
    -----
    :math:`H(p) = -\sum_i p_i \log p_i`, where :math:`0 \log 0 = 0` is the limit; no epsilon
    is added inside the logarithm. The entropy is never negative.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import entropy
    >>> bool(entropy([0.5, 0.5, 0.0]) == np.log(2))
    True
    """
    (p,), scalar_type = as_probabilities(probabilities=probabilities)
    # Rounding may leave an entry above 1, whose logarithm would make the sum negative.
    log_p = log(np.minimum(p, 1))
    return as_loss(0 - weighted_sum(p, log_p), scalar_type)  # 0 - 0 is 0, but -0 is -0


def softmax_rows(logits: FloatArray, temperature: float) -> FloatArray:
    """Return Eq. 7 on checked logits."""
    exponentials: FloatArray = np.exp(relative_to_top(logits, temperature))
    exponentials /= exponentials.sum(axis=-1, keepdims=True)
    return exponentials


def log_softmax_rows(logits: FloatArray, temperature: float) -> FloatArray:
    """Return the logarithm of Eq. 7 on checked logits."""
    scaled = relative_to_top(logits, temperature)
    others = np.exp(scaled)
    top = np.argmax(logits, axis=-1, keepdims=True)
    np.put_along_axis(others, top, 0, axis=-1)
    scaled -= np.log1p(others.sum(axis=-1, keepdims=True))
    return scaled


def log(p: FloatArray) -> FloatArray:
    """Return `log p`, without a warning where it is `log 0 = -inf`."""
    with np.errstate(divide="ignore"):
        return np.log(p)


def weighted_sum(weights: FloatArray, values: FloatArray) -> FloatArray:
    """Return `sum(weights * values)` over the classes, without those of weight 0."""
    zeros = np.zeros(values.shape, values.dtype)  # in C order, see `relative_to_top`
    terms = np.multiply(weights, values, out=zeros, where=weights != 0)
    total: FloatArray = terms.sum(axis=-1)
    return total


def relative_to_top(logits: FloatArray, temperature: float) -> FloatArray:
    """Return `(z - max z) / temperature`, which is `-inf` for an excluded class.

    A row without a distribution (all classes excluded, or one at +inf) is nan.
    """
    top = logits.max(axis=-1, keepdims=True)
    with np.errstate(over="ignore"):
        # In C order NumPy adds up a row pairwise, which keeps the error of a long one small.
        scaled = np.subtract(logits, np.where(np.isinf(top), np.nan, top), order="C")
        temperature = _not_rounded_to_zero(temperature, scaled)
        return np.divide(scaled, temperature, out=scaled, where=scaled != -np.inf)


def _not_rounded_to_zero(temperature: float, dividend: FloatArray) -> float:
    """Return a temperature that is not 0 in the dividend's dtype, where 0 / 0 would be nan."""
    return max(temperature, float(np.finfo(dividend.dtype).tiny))
