"""The soft loss of distillation and its gradient, written once for NumPy and for PyTorch.

For one row of student logits z and teacher logits v, at inverse temperature β = 1/τ,

    p = softmax(βv),   q = softmax(βz),   KL = Σ p log(p/q),   ∂KL/∂z = β (q − p).

Let d = log(q/p) + c with any constant c, the same for all classes. Then, with
φ(x) = eˣ − 1 − x ≥ 0,

    S = Σ p φ(d),   M = Σ p (eᵈ − 1),
    KL = S − (M − log(1 + M)),   q − p = p (eᵈ − 1 − M) / (1 + M).

S has no negative term, and M − log(1 + M) ≈ ½M² is small where c is chosen so that M is:
nothing cancels.

Functions take `ops`, the operations that NumPy and PyTorch write differently, and the rows
of a block: arrays `(n, K)` for n examples, and columns `(n, 1)` with a number for each.
"""

from __future__ import annotations

import math
from typing import Any, Protocol

Rows = Any  #: `(n, K)`, an array of NumPy or a tensor of PyTorch
Column = Any  #: `(n, 1)`

REACH = 1.0  # the largest |d| at which φ(d) is computed by its series
CLIP = 2.0  # the largest |d| that counts in the mean of d

# ½x coth ½x = 1 + x² g(x²), where g(x²) = 1/12 − x²/720 + x⁴/30240 − …; here stands, by
# powers of x², the polynomial that equals g at the Chebyshev points of [0, REACH²].
COTH = {
    "float32": [0.08333330844978015, -0.001388440356614709, 3.186304690759591e-05],
    "float64": [
        0.0833333333333333,
        -0.0013888888888851738,
        3.306878300926343e-05,
        -8.26719218658696e-07,
        2.0875729194622377e-08,
        -5.268988519780863e-10,
        1.2257392372635436e-11,
    ],
}


class Selection(Protocol):
    """The entries of a block at which a condition holds."""

    def take(self, rows: Rows) -> Any:
        """Return the entries of a block."""

    def take_column(self, column: Column) -> Any:
        """Return the number of its row for each entry."""

    def put(self, rows: Rows, values: Any) -> Rows:
        """Return the block with new values at the entries; it may be changed in place."""


class Operations(Protocol):
    """What NumPy and PyTorch write differently. A trailing underscore: in place if possible."""

    def exp(self, x: Any) -> Any: ...
    def exp_(self, x: Any) -> Any: ...
    def log(self, x: Any) -> Any: ...
    def log1p(self, x: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def clip(self, x: Rows, low: float, high: float) -> Rows: ...
    def row_sum(self, x: Rows) -> Column: ...
    def row_max(self, x: Rows) -> Column: ...
    def at_top(self, v: Rows, z: Rows) -> tuple[Column, Column]:
        """Return the largest v of each row, and z at that class."""

    def normalizer(self, exponentials: Rows) -> Column:
        """Return the sum of each row, whose largest numbers are 1."""

    def dtype_name(self, x: Any) -> str: ...
    def any(self, condition: Any) -> bool:
        """Whether a condition holds anywhere; True where the numbers cannot be known."""

    def all_within(self, x: Rows, bound: float) -> bool:
        """Whether |x| ≤ bound everywhere; False where the numbers cannot be known."""

    def select(self, condition: Rows) -> Selection: ...


def inverse_temperature(temperature: float, tiny: float, huge: float) -> float:
    """Return 1/τ, between what is too small to be seen beside 1, so that −∞·β is −∞, and huge."""
    return min(max(1 / temperature, math.pow(tiny, 0.8)), huge)


def loss_and_slope(
    ops: Operations, z: Rows, v: Rows, beta: float, scaled: bool
) -> tuple[Column, Rows, Column]:
    """Return τ²·KL, and the two factors of τ (q − p); or of KL and q − p if not scaled.

    Scaled results are sums of x = τd, a difference of logits, which no temperature makes
    underflow: p φ(d) τ² = p x² (φ(d)/d²).
    """
    unit = 1 / beta if scaled else 1.0
    v_top, z_top = ops.at_top(v, z)
    p = v - v_top
    p *= beta
    p = ops.exp_(p)
    total = ops.normalizer(p)
    # The teacher's top class, where it has most of p, must keep its small d to all digits.
    counts_from_top = (total < 2) | (abs(z_top - v_top) * beta > 1)
    level = ops.where(counts_from_top, z_top, v_top)
    x = _difference(ops, z, v, level, v_top, beta)
    center = ops.row_sum(p * x) / total
    x -= center
    d = x * beta
    wide = None
    if not ops.all_within(d, REACH):
        if not (ops.all_within(d, 0.75 * CLIP) and ops.all_within(center * beta, 0.2 * CLIP)):
            x, level, center = _recentered(ops, z, v, v_top, level, p, total, beta)
            d = x * beta
        wide = ops.select(~(abs(d) <= REACH))
        exponent = wide.take(z) - wide.take_column(level) - wide.take_column(center)
        wide_terms = _wide_terms(ops, wide.take(p), wide.take(x if scaled else d), exponent, beta, unit)
    p_expm1, p_phi = _series(p, x if scaled else d, d, COTH[ops.dtype_name(d)])
    if wide is not None:
        p_expm1 = wide.put(p_expm1, wide_terms[0])
        p_phi = wide.put(p_phi, wide_terms[1])
    m = ops.row_sum(p_expm1) / total
    plain_m = m / unit
    loss = ops.row_sum(p_phi) / total
    correction = _correction_ratio(ops, plain_m) * m * m
    if ops.any(loss == math.inf):
        correction = ops.where(loss == math.inf, 0.0, correction)
    loss -= correction
    if wide is not None and ops.any(plain_m > 1):  # then both are large
        mean = ops.row_sum(_product(ops, p, d)) / total
        loss = ops.where(plain_m > 1, (ops.log1p(plain_m) - mean) * unit * unit, loss)
    loss *= loss > 0  # not below 0 by rounding; nan stays
    p *= m
    p_expm1 -= p
    return loss, p_expm1, 1 / ((1 + plain_m) * total)


def _difference(
    ops: Operations, z: Rows, v: Rows, level: Column, v_top: Column, beta: float
) -> Rows:
    """Return (z − v) − (level − v_top), or (z − level) − (v − v_top) where that is rounded less.

    Both are exactly 0 at the teacher's top class, if the level is the student's logit there.
    """
    offset = level - v_top
    is_large = abs(offset) * beta > 1
    if not ops.any(is_large):
        x = z - v
        if ops.any(offset != 0):
            x -= offset
        return x
    x = z - ops.where(is_large, level, 0.0)
    x -= v - ops.where(is_large, v_top, 0.0)
    x -= ops.where(is_large, 0.0, offset)
    return x


def _recentered(
    ops: Operations,
    z: Rows,
    v: Rows,
    v_top: Column,
    level: Column,
    p: Rows,
    total: Column,
    beta: float,
) -> tuple[Rows, Column, Column]:
    """Return z − v less its constant, where some |d| is large, and the constant's two parts.

    A class with a tiny p and a huge |d| would draw the mean away from all others, so in the
    mean |d| counts up to CLIP only, about as much as it weighs in M. Where the top class
    itself is the outlier, or an exponential may overflow, counting starts from the logarithm
    of Σ e^(βz) / Σ e^(βv) instead.
    """
    x, center = _less_mean(ops, z, v, v_top, level, p, total, beta)
    z_max = ops.row_max(z)
    outlying = ((z_max - level) * beta > CLIP) | (abs(center) * beta > CLIP / 2)
    if ops.any(outlying):
        q = ops.exp_((z - z_max) * beta)
        mean_level = z_max + ops.log(ops.row_sum(q) / total) / beta
        level = ops.where(outlying, mean_level, level)
        x, center = _less_mean(ops, z, v, v_top, level, p, total, beta)
    return x, level, center


def _less_mean(
    ops: Operations,
    z: Rows,
    v: Rows,
    v_top: Column,
    level: Column,
    p: Rows,
    total: Column,
    beta: float,
) -> tuple[Rows, Column]:
    """Return z − v less its clipped mean under p, and that mean counted from the level."""
    x = _difference(ops, z, v, level, v_top, beta)
    if ops.any(~(abs(x) < math.inf)):
        x = ops.where((z == -math.inf) & (v == -math.inf), 0.0, x)
    bound = CLIP / beta
    center = ops.row_sum(p * ops.clip(x, -bound, bound)) / total
    x -= center
    return x, center


def _wide_terms(
    ops: Operations, p: Any, x: Any, exponent: Any, beta: float, unit: float
) -> tuple[Any, Any]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d) of the entries with a large |d|.

    p eᵈ is an exponential of its own: p may underflow, eᵈ overflow, and the logits of one
    network may be so large that their difference holds no digit of the other's.
    """
    p_expm1 = ops.exp_(exponent * beta)
    p_expm1 -= p
    p_expm1 *= unit
    return p_expm1, unit * (p_expm1 - _product(ops, p, x))


def _product(ops: Operations, p: Rows, x: Rows) -> Rows:
    """Return p x, where 0·∞ = 0, and −∞ stays even if p has underflowed."""
    return ops.where((p > 0) | (x == -math.inf), ops.where(x == -math.inf, x, p * x), 0.0)


def _series(p: Rows, x: Rows, d: Rows, coefficients: list[float]) -> tuple[Rows, Rows]:
    """Return p·expm1(d)·x/d and p·φ(d)·(x/d)², where |d| ≤ REACH.

    With  h = ½ − d g(d²) = ½ − (½d coth ½d − 1)/d,
    expm1(d) = eᵈ − 1 = d / (1 − d h)  and  φ(d) = d h expm1(d).
    """
    square = d * d
    *lower, highest = coefficients
    h = square * -highest
    for coefficient in reversed(lower[1:]):
        h -= coefficient
        h *= square
    h -= lower[0]
    h *= d
    h += 0.5
    p_expm1 = p * x
    p_expm1 /= 1 - d * h
    h *= x
    h *= p_expm1
    return p_expm1, h


def _correction_ratio(ops: Operations, m: Column) -> Column:
    """Return (M − log(1 + M)) / M²."""
    series = 0.5 - m * (1 / 3 - m / 4)
    return ops.where(abs(m) < 1e-4, series, (m - ops.log1p(m)) / (m * m))
