"""Which divergence of teacher and student, and the loss and gradient that it gives."""

from __future__ import annotations

from typing import NamedTuple

from kd_notes._comparison import Comparison
from kd_notes._divergence_terms import FORMULAS
from kd_notes._formulas import Column, Operations, Rows
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

    Of total variation, τ·D and its gradient.
    """
    compared = Comparison(ops, z, v, beta, scaled)
    summands, slope = FORMULAS[formula.name](compared, formula.parameter)
    loss = ops.row_sum(summands)
    loss *= loss > 0  # not below 0 by rounding; nan stays
    if formula.factor != 1:
        loss, slope = loss * formula.factor, slope * formula.factor
    return loss, slope
