"""The losses that an unknown one is compared with, by their definitions, without a factor.

The definitions serve the fits, at temperatures where they lose no digits. What a loss ought to
be at any temperature is computed by `kd_notes`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import NamedTuple

import numpy as np

from kd_notes import divergences as kd
from kd_notes._checks import FloatArray
from kd_notes._softmax import log_softmax_rows


class Networks(NamedTuple):
    """Logits over the temperature, probabilities and their logarithms, `(..., K)`."""

    s: FloatArray
    t: FloatArray
    q: FloatArray
    p: FloatArray
    log_q: FloatArray
    log_p: FloatArray

    @classmethod
    def of(cls, s: FloatArray, t: FloatArray) -> Networks:
        log_q, log_p = log_softmax_rows(s, 1.0), log_softmax_rows(t, 1.0)
        return cls(s, t, np.exp(log_q), np.exp(log_p), log_q, log_p)


Formula = Callable[[Networks, FloatArray], FloatArray]


class Family(NamedTuple):
    """A divergence, with a parameter or without.

    Attributes
    ----------
    terms
        Of the networks and the parameter, `(..., K)` or broadcast to it: their sum is the loss.
    exact
        The divergence of `kd_notes` with a parameter, if it has this one.
    starts, bounds
        From which parameters a fit begins, none if there is no parameter; and its range.
    homogeneous
        Whether a factor on all logits is a factor of the value, so that only the ratio of
        the temperatures can be seen.
    normalizer
        The factor, often included, by which the limit becomes half a variance.
    is_linear
        Whether the student's logits enter linearly but for a normalizer, which is the same for
        every teacher.
    has_entropy
        Whether it is a divergence plus the teacher's entropy, which no student can change.
    is_error
        Whether it is a squared error, of which a mean over the classes is usual.
    is_named
        Whether it is one of those that `Report.divergence` may name.
    """

    name: str
    terms: Formula
    exact: Callable[[float], str | kd.Divergence] | None = None
    starts: tuple[float, ...] = ()
    bounds: tuple[float, float] = (0.0, 1.0)
    homogeneous: bool = False
    normalizer: Callable[[float], float] = lambda parameter: 1.0
    is_linear: bool = False
    has_entropy: bool = False
    is_error: bool = False
    is_named: bool = True


def _jensen_shannon(n: Networks, beta: FloatArray) -> FloatArray:
    return beta * _skew(n, beta) + (1 - beta) * _skew_reverse(n, 1 - beta)


def _skew(n: Networks, alpha: FloatArray) -> FloatArray:
    return n.p * (n.log_p - np.log(alpha * n.p + (1 - alpha) * n.q))


def _skew_cross_entropy(n: Networks, alpha: FloatArray) -> FloatArray:
    return -n.p * np.log(alpha * n.p + (1 - alpha) * n.q)


def _skew_reverse(n: Networks, alpha: FloatArray) -> FloatArray:
    return n.q * (n.log_q - np.log(alpha * n.q + (1 - alpha) * n.p))


def _alpha(n: Networks, alpha: FloatArray) -> FloatArray:
    return (np.exp(alpha * n.log_p + (1 - alpha) * n.log_q) - n.p) / (alpha * (alpha - 1))


def _half_variance(n: Networks, _: FloatArray) -> FloatArray:
    d = n.s - n.t
    squares: FloatArray = (d - d.mean(axis=-1, keepdims=True)) ** 2 / (2 * d.shape[-1])
    return squares


def _of_top(n: Networks, _: FloatArray) -> FloatArray:
    return np.where(n.t == n.t.max(axis=-1, keepdims=True), -n.log_q, 0)


def _mixed(n: Networks, weight: FloatArray) -> FloatArray:
    return ((1 - weight) * n.p - weight * n.q) * (n.log_p - n.log_q)


_INSIDE = (0.02, 0.1, 0.3, 0.5, 0.7, 0.9)
_skewed = partial(Family, starts=_INSIDE, normalizer=lambda parameter: 1 / (1 - parameter) ** 2)
_plain = partial(Family, is_named=False)

#: What the named ones are called in a sentence.
SPOKEN = {
    "forward_kl": "forward KL",
    "reverse_kl": "reverse KL",
    "jeffreys": "Jeffreys divergence",
    "cross_entropy": "cross-entropy",
    "squared_error": "squared error",
    "half_variance": "half the variance",
    "total_variation": "total variation",
    "jensen_shannon": "Jensen-Shannon divergence",
    "skew_kl": "skew KL",
    "skew_reverse_kl": "skew reverse KL",
    "alpha": "alpha-divergence",
}

#: Without a parameter first: of two that fit equally, the first is the answer.
FAMILIES = (
    Family("forward_kl", lambda n, _: n.p * (n.log_p - n.log_q), lambda _: "forward_kl"),
    Family("reverse_kl", lambda n, _: n.q * (n.log_q - n.log_p), lambda _: "reverse_kl"),
    Family("jeffreys", lambda n, _: (n.p - n.q) * (n.log_p - n.log_q) / 2, lambda _: "jeffreys"),
    Family("cross_entropy", lambda n, _: -n.p * n.log_q, is_linear=True, has_entropy=True),
    Family("squared_error", lambda n, _: (n.s - n.t) ** 2, homogeneous=True, is_error=True),
    Family("half_variance", _half_variance, homogeneous=True),
    Family("total_variation", lambda n, _: abs(n.q - n.p) / 2, lambda _: "total_variation"),
    Family(
        "jensen_shannon",
        _jensen_shannon,
        partial(kd.JensenShannon, normalized=False),
        _INSIDE,
        normalizer=lambda beta: 1 / (beta * (1 - beta)),
    ),
    _skewed("skew_kl", _skew, partial(kd.SkewKL, normalized=False)),
    _skewed("skew_kl", _skew_cross_entropy, has_entropy=True),
    _skewed("skew_reverse_kl", _skew_reverse, partial(kd.SkewReverseKL, normalized=False)),
    Family("alpha", _alpha, kd.Alpha, (-1.0, 0.3, 0.5, 0.7, 1.5, 2.0, 3.0), (-8.0, 8.0)),
    _plain("the squared error of the probabilities", lambda n, _: (n.q - n.p) ** 2, is_error=True),
    _plain("forward KL mixed with {:.3g} of reverse KL", _mixed, starts=_INSIDE),
    _plain("the cross-entropy on the student's probabilities", lambda n, _: -n.q * n.log_p),
    _plain("the cross-entropy on the teacher's top class", _of_top, is_linear=True),
    _plain(
        "kl_div given probabilities where it expects their logarithms",
        lambda n, _: n.p * (n.log_p - n.q),
    ),
)
