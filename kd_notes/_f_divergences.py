"""Which divergence of teacher and student, and the loss and gradient that it gives."""

from __future__ import annotations

import math
from typing import NamedTuple

from kd_notes._comparison import Comparison
from kd_notes._divergence_terms import FORMULAS, slope_of_signs
from kd_notes._formulas import BOUND, Column, Operations, Rows, loss_and_slope, times
from kd_notes.divergences import (
    Alpha,
    Divergence,
    ForwardKL,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)

NAMED: dict[str, Divergence] = {
    "forward_kl": ForwardKL(),
    "reverse_kl": ReverseKL(),
    "jeffreys": Jeffreys(),
    "jensen_shannon": JensenShannon(),
    "total_variation": TotalVariation(),
}

NEGLIGIBLE = 1e-30  # times every log(q/p) of finite logits, up to 1e13, it is less than eps

LEAST_PARAMETER = {"float32": 1e-20, "float64": 1e-280}  # times the largest eʸ, it is large
HUGE = 1e30  # a finite number that stands for infinite temperature

SWAPPED = {
    "forward_kl": "reverse_kl",
    "reverse_kl": "forward_kl",
    "skew_kl": "skew_reverse_kl",
    "skew_reverse_kl": "skew_kl",
}


class Formula(NamedTuple):
    """Which function computes a divergence, with which parameter, times which factor."""

    name: str = "forward_kl"
    parameter: float = 0.0
    factor: float = 1.0


FORWARD = Formula()


def as_formula(divergence: str | Divergence) -> Formula:
    """Return how a divergence, or the name of one, is computed."""
    if isinstance(divergence, str) and divergence not in NAMED:
        raise ValueError(
            f"divergence must be one of {[*NAMED]} or from kd_notes.divergences; "
            f"got {divergence!r}"
        )
    match NAMED[divergence] if isinstance(divergence, str) else divergence:
        case ForwardKL() | JensenShannon(beta=0) | SkewKL(alpha=0) | Alpha(alpha=1):
            return FORWARD
        case ReverseKL() | JensenShannon(beta=1) | SkewReverseKL(alpha=0) | Alpha(alpha=0):
            return Formula("reverse_kl")
        case Jeffreys():
            return Formula("jeffreys")
        case TotalVariation():
            return Formula("total_variation")
        case Alpha(alpha) if abs(alpha) < NEGLIGIBLE:
            return Formula("reverse_kl")
        case Alpha(alpha):
            return Formula("alpha", alpha)
        case JensenShannon(beta, normalized=normalized):
            return Formula("jensen_shannon", beta, 1.0 if normalized else beta * (1 - beta))
        case SkewKL(alpha, normalized=normalized):
            return Formula("skew_kl", alpha, 1.0 if normalized else (1 - alpha) ** 2)
        case SkewReverseKL(alpha, normalized=normalized):
            return Formula("skew_reverse_kl", alpha, 1.0 if normalized else (1 - alpha) ** 2)
    raise TypeError(
        f"divergence must be one of {[*NAMED]} or from kd_notes.divergences; got {divergence!r}"
    )


def swapped(formula: Formula) -> Formula:
    """Return the formula of the same divergence with its two networks exchanged."""
    name, parameter, factor = formula
    if name == "jensen_shannon":
        return as_formula(JensenShannon(1 - parameter))._replace(factor=factor)
    if name == "alpha":
        return as_formula(Alpha(1 - parameter))
    return Formula(SWAPPED.get(name, name), parameter, factor)


def divergence_and_slope(
    ops: Operations, z: Rows, v: Rows, beta: float, scaled: bool, formula: Formula
) -> tuple[Column, Rows]:
    """Return τ²·D and its gradient; or D and τ times its gradient if not scaled.

    Of total variation, τ·D and its gradient. If β is 0, these are their limits. Where D is not
    defined, both are nan.
    """
    loss, slope = _divergence_and_slope(ops, z, v, beta, scaled, formula)
    if ops.any(loss != loss):
        slope = ops.where(loss == loss, slope, math.nan)
    return loss, slope


def _divergence_and_slope(
    ops: Operations, z: Rows, v: Rows, beta: float, scaled: bool, formula: Formula
) -> tuple[Column, Rows]:
    if beta == 0:
        return _at_infinity(ops, z, v, scaled, formula)
    if formula == FORWARD:
        loss, slope, slope_factor = loss_and_slope(ops, z, v, beta, scaled)
        return loss, slope * slope_factor
    compared = Comparison(ops, z, v, beta, scaled)
    parameter = formula.parameter
    if parameter > 0:
        parameter = max(parameter, LEAST_PARAMETER[ops.dtype_name(z)])
    summands, slope = FORMULAS[formula.name](compared, parameter)
    loss = ops.row_sum(summands)
    loss *= loss > 0  # not below 0 by rounding; nan stays
    if formula.factor != 1:
        loss, slope = loss * formula.factor, slope * formula.factor
    return loss, slope


def _at_infinity(
    ops: Operations, z: Rows, v: Rows, scaled: bool, formula: Formula
) -> tuple[Column, Rows]:
    """Return the limits for β → 0, to which only what one network excludes counts unscaled.

    Scaled, such a row's loss is infinite, and its slope q − p, or what stands for it, is huge.
    """
    is_apart = (z == -math.inf) != (v == -math.inf)
    if scaled and not ops.any(is_apart):
        return _limit(ops, z, v, formula)
    without_logits = times(ops, z, 0.0), times(ops, v, 0.0)
    plain, plain_slope = divergence_and_slope(ops, *without_logits, 1.0, False, formula)
    if not scaled:
        return plain, plain_slope
    loss, slope = _limit(ops, z, v, formula)
    bound = BOUND[ops.dtype_name(slope)]
    huge = ops.clip(plain_slope * HUGE, -bound, bound)
    return ops.where(plain > 0, math.inf, loss), ops.where(plain > 0, huge, slope)


def _limit(ops: Operations, z: Rows, v: Rows, formula: Formula) -> tuple[Column, Rows]:
    """Return half the variance of D = z − v, and its gradient (D − mean)/K.

    Of total variation, half the mean of |D − mean|. A quarter of D does not overflow.
    """
    x = z * 0.25
    x -= v * 0.25
    excluded = (z == -math.inf) & (v == -math.inf)
    if ops.any(excluded):
        x = ops.where(excluded, 0.0, x)
    share = ops.where(excluded, x, 1.0)
    share /= ops.row_sum(share)
    x_top, mean = ops.at_top(v, x)[1], ops.row_sum(x * share)
    x -= ops.where(abs(x_top - mean) < abs(mean) / 2, x_top, 0.0)  # what most classes share
    if ops.any(excluded):
        x = ops.where(excluded, 0.0, x)
    x -= ops.row_sum(x * share)
    slope = x * share
    if formula.name == "total_variation":
        return 2 * ops.row_sum(abs(slope)), slope_of_signs(ops, x, share)
    loss = 8 * formula.factor * ops.row_sum(slope * x)
    return loss, slope * (4 * formula.factor)
