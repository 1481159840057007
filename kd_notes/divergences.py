r"""The divergences that the distillation loss can be made of.

A divergence of the teacher's probabilities p and the student's q is here an f-divergence,

.. math:: D_f(p, q) = \sum_i q_i\, f(p_i/q_i), \qquad f(1) = 0,

divided by :math:`f''(1)`, so that all have one scale: times temperature squared, each tends
to half the variance of the logit differences. What a divergence chooses is what happens on
the way there.
"""

from __future__ import annotations

from dataclasses import KW_ONLY, dataclass
from typing import TypeAlias

from kd_notes._checks import as_flag, as_real_number

__all__ = [
    "Alpha",
    "Divergence",
    "ForwardKL",
    "Jeffreys",
    "JensenShannon",
    "ReverseKL",
    "SkewKL",
    "SkewReverseKL",
    "TotalVariation",
]


@dataclass(frozen=True)
class ForwardKL:
    r"""The Kullback-Leibler divergence from teacher to student, as the KD loss has it.

    Notes
    -----
    :math:`\mathrm{KL}(p, q) = \sum_i p_i \log (p_i/q_i)`, of Hinton et al. :cite:p:`HVD15`, with
    :math:`f''(1) = 1`. It is infinite where only the student excludes a class.

    Examples
    --------
    >>> from kd_notes import kd_loss
    >>> from kd_notes.divergences import ForwardKL
    >>> student, teacher = [0.0, 1.0], [0.0, 2.0]
    >>> loss = kd_loss(student, teacher, divergence=ForwardKL())
    >>> loss == kd_loss(student, teacher)
    True
    """


@dataclass(frozen=True)
class ReverseKL:
    r"""The Kullback-Leibler divergence from student to teacher.

    Notes
    -----
    :math:`\mathrm{KL}(q, p) = \sum_i q_i \log (q_i/p_i)`, with :math:`f''(1) = 1`. It is infinite
    where only the teacher excludes a class. In distillation, of MiniLLM (Gu et al., 2024,
    `arXiv:2306.08543 <https://arxiv.org/abs/2306.08543>`_).

    Examples
    --------
    A student that is sure of one of the teacher's two classes costs little; forward, much:

    >>> from kd_notes import kd_loss
    >>> student, teacher = [9.0, 0.0, 0.0], [9.0, 9.0, 0.0]
    >>> round(kd_loss(student, teacher, divergence="reverse_kl"), 3)
    0.692
    >>> round(kd_loss(student, teacher, divergence="forward_kl"), 3)
    3.807
    """


@dataclass(frozen=True)
class Jeffreys:
    r"""Half the sum of the forward and the reverse Kullback-Leibler divergence.

    Notes
    -----
    :math:`\tfrac12 \sum_i (q_i - p_i) \log (q_i/p_i)`, with :math:`f''(1) = 1`: half of what
    Jeffreys (1946) calls an invariant. It is infinite where only one network excludes a class.

    Examples
    --------
    >>> from kd_notes import kd_loss
    >>> student, teacher = [9.0, 0.0, 0.0], [9.0, 9.0, 0.0]
    >>> round(kd_loss(student, teacher, divergence="jeffreys"), 3)
    2.249
    """


@dataclass(frozen=True)
class JensenShannon:
    r"""The generalized Jensen-Shannon divergence, between forward and reverse.

    Parameters
    ----------
    beta
        The teacher's weight in the mixture, in [0, 1]. At 0 the divergence is the forward,
        at 1 the reverse Kullback-Leibler divergence, to the bit.
    normalized
        Whether it is divided by :math:`f''(1) = \beta (1-\beta)`. If not, it is what libraries
        compute, which vanishes toward both ends: so a beta near an end acts as a smaller
        learning rate. Then beta must not be an end.

    Raises
    ------
    ValueError
        If beta is outside [0, 1], or an end without normalization.
    TypeError
        If beta is no real number, or `normalized` is not a bool.

    Notes
    -----
    With :math:`m = \beta p + (1-\beta) q`, of Agarwal et al. (2024, `arXiv:2306.13649
    <https://arxiv.org/abs/2306.13649>`_), it is

    .. math:: \beta\, \mathrm{KL}(p, m) + (1-\beta)\, \mathrm{KL}(q, m).

    It is finite for every beta inside, whatever the networks exclude. A beta above 0 counts as
    at least 1e-20 in float32, and 1e-280 in float64.

    Examples
    --------
    >>> from kd_notes import kd_loss
    >>> from kd_notes.divergences import JensenShannon
    >>> def loss(divergence):
    ...     student, teacher = [1.0, 2.0, 0.0], [3.0, 1.0, -1.0]
    ...     return kd_loss(student, teacher, divergence=divergence)
    >>> loss(JensenShannon(0)) == loss("forward_kl")
    True
    >>> loss(JensenShannon(1)) == loss("reverse_kl")
    True
    >>> round(loss(JensenShannon(1e-6)) / loss("forward_kl"), 4)
    1.0
    >>> undivided = loss(JensenShannon(1e-6, normalized=False))
    >>> round(undivided / loss("forward_kl"), 8)
    1e-06
    """

    beta: float = 0.5
    _: KW_ONLY
    normalized: bool = True

    def __post_init__(self) -> None:
        _convert(self, beta=_within("beta", self.beta, 0, 1))
        _convert(self, normalized=as_flag("normalized", self.normalized))
        if not self.normalized and self.beta in (0, 1):
            raise ValueError(
                "beta must be above 0 and below 1 with normalized=False, for at both ends the "
                f"divergence is 0; got {self.beta!r}"
            )


@dataclass(frozen=True)
class _Skew:
    """One network against a mixture, in which its own weight is alpha."""

    alpha: float = 0.1
    _: KW_ONLY
    normalized: bool = True

    def __post_init__(self) -> None:
        alpha = _within("alpha", self.alpha, 0, 1)
        if alpha == 1:
            raise ValueError(
                "alpha must be below 1, where the mixture is one network alone and the divergence "
                f"0; got {self.alpha!r}"
            )
        _convert(self, alpha=alpha, normalized=as_flag("normalized", self.normalized))


class SkewKL(_Skew):
    r"""The Kullback-Leibler divergence from the teacher to a mixture of both networks.

    Parameters
    ----------
    alpha
        The teacher's weight in the mixture, at least 0 and below 1. At 0 the divergence is
        the forward Kullback-Leibler divergence, to the bit.
    normalized
        Whether it is divided by :math:`f''(1) = (1-\alpha)^2`. If not, it is what libraries
        compute.

    Raises
    ------
    ValueError
        If alpha is outside [0, 1).
    TypeError
        If alpha is no real number, or `normalized` is not a bool.

    Notes
    -----
    :math:`\mathrm{KL}(p, \alpha p + (1-\alpha) q)`, of DistiLLM (Ko et al., 2024,
    `arXiv:2402.03898 <https://arxiv.org/abs/2402.03898>`_). For an alpha above 0 it is finite,
    whatever the networks exclude. Such an alpha counts as at least 1e-20 in float32, and 1e-280
    in float64.

    Examples
    --------
    A class that only the student excludes:

    >>> import numpy as np
    >>> from kd_notes import kd_loss
    >>> from kd_notes.divergences import SkewKL
    >>> student, teacher = [0.0, 0.0, -np.inf], [0.0, 0.0, 0.0]
    >>> skewed = [SkewKL(alpha) for alpha in (0, 0.1)]
    >>> [round(kd_loss(student, teacher, divergence=d), 3) for d in skewed]
    [inf, 0.642]
    """


class SkewReverseKL(_Skew):
    r"""The Kullback-Leibler divergence from the student to a mixture of both networks.

    Parameters
    ----------
    alpha
        The student's weight in the mixture, at least 0 and below 1. At 0 the divergence is
        the reverse Kullback-Leibler divergence, to the bit.
    normalized
        Whether it is divided by :math:`f''(1) = (1-\alpha)^2`. If not, it is what libraries
        compute.

    Raises
    ------
    ValueError, TypeError
        As :class:`SkewKL`.

    Notes
    -----
    :math:`\mathrm{KL}(q, \alpha q + (1-\alpha) p)`, of DistiLLM as :class:`SkewKL`, which is
    the same with student and teacher exchanged.

    Examples
    --------
    >>> from kd_notes import kd_loss
    >>> from kd_notes.divergences import SkewKL, SkewReverseKL
    >>> student, teacher = [1.0, 2.0, 0.0], [3.0, 1.0, -1.0]
    >>> loss = kd_loss(student, teacher, divergence=SkewReverseKL(0.3))
    >>> loss == kd_loss(teacher, student, divergence=SkewKL(0.3))
    True
    """


@dataclass(frozen=True)
class Alpha:
    r"""The alpha-divergence, which passes through most of the others.

    Parameters
    ----------
    alpha
        Any finite number. 1 gives the forward, 0 the reverse Kullback-Leibler divergence, to
        the bit; 2 and -1 half of the chi-squared divergences of Pearson and Neyman; 1/2 four
        times one less the Bhattacharyya coefficient.

    Raises
    ------
    ValueError
        If alpha is not finite.
    TypeError
        If alpha is no real number.

    Notes
    -----
    Of Amari (1985), whose own alpha is one less twice ours, with :math:`f''(1) = 1`:

    .. math:: \frac{\sum_i p_i^\alpha q_i^{1-\alpha} - 1}{\alpha (\alpha-1)}.

    For an alpha of at least 1 it is infinite where only the student excludes a class, for one
    of at most 0 where only the teacher does. The rounding of p/q is raised to the power, too: for
    an alpha beyond -1 and 2 the relative error grows in proportion to it.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import kd_loss, softmax
    >>> from kd_notes.divergences import Alpha
    >>> student, teacher = [1.0, 2.0, 0.0], [3.0, 1.0, -1.0]
    >>> q, p = softmax(student), softmax(teacher)
    >>> loss = kd_loss(student, teacher, divergence=Alpha(0.5))
    >>> bool(np.isclose(loss, 4 - 4 * np.sum(np.sqrt(p * q))))
    True
    """

    alpha: float

    def __post_init__(self) -> None:
        alpha = as_real_number("alpha", self.alpha)
        if not abs(alpha) < float("inf"):
            raise ValueError(f"alpha must be finite; got {self.alpha!r}")
        _convert(self, alpha=alpha)


@dataclass(frozen=True)
class TotalVariation:
    r"""The total variation distance, half the sum of all differences.

    Notes
    -----
    :math:`\tfrac12 \sum_i |q_i - p_i|`. Its :math:`f(x) = |x - 1|/2` is not smooth at 1, there
    is no :math:`f''(1)` to divide by, and `scaled` multiplies it by temperature, not by
    temperature squared: so it tends to half the mean of
    :math:`|\Delta_i - \bar\Delta|`, with the logit differences
    :math:`\Delta = z^s - z^t`. In distillation, of Wen et al. (2023, `arXiv:2307.15190
    <https://arxiv.org/abs/2307.15190>`_).

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import kd_loss
    >>> student, teacher = [1.0, 2.0, 0.0], [3.0, 1.0, -1.0]
    >>> def loss(tau):
    ...     return kd_loss(student, teacher, tau, divergence="total_variation")
    >>> round(loss(1), 6), round(loss(np.inf), 6)
    (0.622085, 0.666667)
    """


Divergence: TypeAlias = (
    ForwardKL
    | ReverseKL
    | Jeffreys
    | JensenShannon
    | SkewKL
    | SkewReverseKL
    | Alpha
    | TotalVariation
)


def _within(name: str, value: float, low: float, high: float) -> float:
    number = as_real_number(name, value)
    if not low <= number <= high:
        raise ValueError(f"{name} must be between {low} and {high}; got {value!r}")
    return number


def _convert(divergence: object, **fields: float) -> None:
    """Store checked fields: Python floats and bools, so that equal divergences are equal."""
    for name, value in fields.items():
        object.__setattr__(divergence, name, value)
