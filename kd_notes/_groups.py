"""The loss of two groups of classes, a set S and the rest, for NumPy and for PyTorch.

The teacher's mass P on S and the student's Q are known as logarithms and as sums of exponentials.
The functions return logits of the two groups, of which the kernel computes kl(P, Q).
"""

from __future__ import annotations

import math
from typing import Any

from kd_notes._formulas import Column, Operations, inverse_temperature

# The logarithm of a mass is 0 within so much times 1 + |log-normalizer|.
ROUNDING, ROUNDING_OF_HALF = 1e-5, 1e-2


def mass_tolerance(log_normalizer: Any, is_half: bool) -> Any:
    """Return by how much log P may exceed 0, as values that were rounded may make it."""
    return (1 + abs(log_normalizer)) * (ROUNDING_OF_HALF if is_half else ROUNDING)


def log_mass(
    ops: Operations, v_top: Column, others: Column, log_normalizer: Column | None, beta: float
) -> Column:
    """Return log P, from the teacher's top value and the sum of the other exponentials.

    The top one, which is 1, is added by log1p, and so a P near 1 keeps its digits. Renormalized,
    P is 1.
    """
    log_total = ops.log1p(others)
    if log_normalizer is None:
        return log_total - log_total  # nan is unchanged
    return (v_top * beta - log_normalizer) + log_total


def bounded_inverse(temperature: float, tiny: float, huge: float) -> float:
    """Return 1/τ in [tiny^0.8, huge], so that log-odds over it are finite."""
    return max(inverse_temperature(temperature, tiny, huge), math.pow(tiny, 0.8))


def group_unit(beta: float) -> float:
    """Return the power of two in (τ/2, τ].

    At this temperature, instead of 1, the loss of two groups is not rounded more, and does not
    underflow.
    """
    return math.ldexp(1.0, -math.frexp(beta)[1])


def student_groups(
    ops: Operations, gap: Column, total: Column, rest_total: Column, beta: float
) -> tuple[Column, Column]:
    """Return the student's logits of S and of the rest, times the unit, one of them 0.

    Their difference is gap/τ + log(total/rest_total), where the gap is that of the top logits,
    and the totals are the sums of exponentials that are 1 there.
    """
    unit, has_s, has_rest = group_unit(beta), total != 0, rest_total != 0
    ratio = ops.where(has_s, total, 1.0) / ops.where(has_rest, rest_total, 1.0)
    log_odds = gap * (unit * beta) + ops.log(ratio) * unit
    log_odds = ops.where(has_s, ops.where(has_rest, log_odds, math.inf), -math.inf)
    log_odds = ops.where(has_s | has_rest, log_odds, math.nan)
    return ops.where(log_odds < 0, log_odds, 0.0), ops.where(log_odds < 0, 0.0, -log_odds)


def teacher_groups(
    ops: Operations, log_mass: Column, tolerance: Column, rest_total: Column, beta: float
) -> tuple[Column, Column, Column]:
    """Return P, and the teacher's logits of S and of the rest times the unit.

    They are log P and log(1 − P). P is 1 where rounding makes it larger, or leaves a mass to a
    rest that the student excludes.
    """
    is_rounding = (log_mass > 0) | ((rest_total == 0) & (log_mass >= -tolerance))
    log_mass = ops.where(is_rounding, 0.0, log_mass)
    of_large, of_small = ops.log(-ops.expm1(log_mass)), ops.log1p(-ops.exp(log_mass))
    log_rest = ops.where(log_mass > -math.log(2), of_large, of_small)
    return ops.exp(log_mass), log_mass * group_unit(beta), log_rest * group_unit(beta)


def chained(ops: Operations, of_groups: Any, mass: Any, within: Any) -> Any:
    """Return kl(P, Q) + P · KL(within S), infinite if the latter is, even if P underflows."""
    return of_groups + ops.where((mass > 0) | (within < math.inf), mass * within, within)
