"""Divergences between probabilities: Kullback-Leibler and skew-Jensen (Eq. 8, and 4-5)."""

from __future__ import annotations

from typing import overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import FloatArray, Loss, Row, as_alpha, as_loss, as_probabilities
from kd_notes._comparison import minus_log1p_ratio
from kd_notes._kernel import OPERATIONS

__all__ = ["kl_divergence", "skew_jensen_divergence"]


@overload
def kl_divergence(p: Row, q: Row) -> float: ...
@overload
def kl_divergence(p: ArrayLike, q: ArrayLike) -> FloatArray: ...
def kl_divergence(p: ArrayLike, q: ArrayLike) -> Loss:
    r"""Return the Kullback-Leibler divergence of two distributions.

    Parameters
    ----------
    p, q
        `(..., K)`, probabilities, non-negative, each row summing to one. For logits use
        `kd_loss`: probabilities have already lost digits in the softmax.

    Returns
    -------
    array `(...)`
        :math:`\mathrm{KL}(p, q)` in nats; never negative, 0 where p equals q, and `inf`
        where q is 0 and p is not. Two plain lists give a `float`; float16 gives float32.

    Raises
    ------
    ValueError
        If shapes do not match or a row is not a distribution.
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    Eq. 8 of the note :cite:p:`Che21`, :math:`\sum_i p_i \log (p_i/q_i)`, summed as
    :math:`\sum_i (p_i \log (p_i/q_i) - p_i + q_i)`. For distributions the two sums are equal,
    but no term of the second is negative, and an error in the sum of p or q has little effect.

    Examples
    --------
    >>> from kd_notes import kl_divergence
    >>> round(kl_divergence([0.5, 0.5], [0.9, 0.1]), 6)
    0.510826
    >>> kl_divergence([0.5, 0.5], [1.0, 0.0])
    inf
    """
    (p, q), scalar_type = as_probabilities(p=p, q=q)
    return as_loss(divergence_rows(p, q, p_weight=0, q_weight=1), scalar_type)


@overload
def skew_jensen_divergence(p: Row, q: Row, alpha: float) -> float: ...
@overload
def skew_jensen_divergence(p: ArrayLike, q: ArrayLike, alpha: float) -> FloatArray: ...
def skew_jensen_divergence(p: ArrayLike, q: ArrayLike, alpha: float) -> Loss:
    r"""Return the skew-Jensen divergence of two distributions under negative entropy.

    Parameters
    ----------
    p, q
        `(..., K)`, non-negative, each row summing to one.
    alpha
        Skew, in [0, 1].

    Returns
    -------
    array `(...)`
        In nats, non-negative; 0 where p equals q. Two plain lists give a `float`; float16
        gives float32.

    Raises
    ------
    ValueError
        If shapes do not match, a row is not a distribution, or alpha is outside [0, 1].
    TypeError
        If an argument does not hold real numbers.

    Notes
    -----
    With :math:`G = -H`, the divergence of Nielsen and Boltz :cite:p:`NB11` is

    .. math::

        J_\alpha(p, q) = \frac{1}{\alpha (1-\alpha)}
        \bigl(&(1-\alpha) G(p) + \alpha G(q) \\
        &- G((1-\alpha) p + \alpha q)\bigr).

    It tends to :math:`\mathrm{KL}(q, p)` as alpha tends to 0 and to
    :math:`\mathrm{KL}(p, q)` as alpha tends to 1; those are its values there. With p
    uniform and q the prediction, the two ends are the confidence penalty and label
    smoothing :cite:p:`MSC20`. It is computed as a sum of non-negative terms,
    :math:`\mathrm{KL}(p, m)/\alpha + \mathrm{KL}(q, m)/(1-\alpha)` with
    :math:`m = (1-\alpha) p + \alpha q`, in which nothing cancels.

    Examples
    --------
    >>> from kd_notes import kl_divergence, skew_jensen_divergence
    >>> p, q = [0.5, 0.5], [0.9, 0.1]
    >>> skew_jensen_divergence(p, q, alpha=0) == kl_divergence(q, p)
    True
    >>> round(skew_jensen_divergence(p, q, alpha=1e-9) / kl_divergence(q, p), 8)
    1.0
    """
    (p, q), scalar_type = as_probabilities(p=p, q=q)
    alpha = as_alpha(alpha)
    from_p = divergence_rows(p, q, p_weight=1 - alpha, q_weight=alpha)
    from_q = divergence_rows(q, p, p_weight=alpha, q_weight=1 - alpha)
    return as_loss(from_p + from_q, scalar_type)


def divergence_rows(p: FloatArray, q: FloatArray, p_weight: float, q_weight: float) -> FloatArray:
    """Return `KL(p, m) / w` with `m = (1 - w) p + w q`, where w is `q_weight`.

    At w = 0 it is the limit, 0. Both weights are arguments because 1 minus the larger would
    round the smaller. With x = w (q - p) / p, a class adds p (x - log1p(x)) / w: the terms
    p x sum to zero over the classes and make every term non-negative. Where p is 0, or so
    small that x overflows, p log1p(x) is negligible, and the class adds q.
    """
    if q_weight == 0:
        return np.zeros(p.shape[:-1], p.dtype)
    change = q_weight * (q - p)
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        x = np.divide(change, p, out=np.full_like(p, np.inf), where=p != 0)
        far = x - np.log((p_weight * p + q_weight * q) / p)  # accurate near x = -1
        near = x * x * minus_log1p_ratio(OPERATIONS, x)
        terms = np.where(x == np.inf, change, p * np.where(np.abs(x) <= 0.5, near, far))
    # In C order NumPy adds up a row pairwise, which keeps the error of a long one small.
    divergence: FloatArray = np.ascontiguousarray(terms).sum(axis=-1)
    divergence /= q_weight
    return divergence
