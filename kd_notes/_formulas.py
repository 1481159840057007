"""The soft loss of distillation and its gradient, written once for NumPy and for PyTorch.

For one row of student logits z and teacher logits v, at inverse temperature β = 1/τ,

    p = softmax(βv),   q = softmax(βz),   KL = Σ p log(p/q),   ∂KL/∂z = β (q − p).

Let d = log(q/p) + c with any constant c, the same for all classes. Then, with
φ(x) = eˣ − 1 − x ≥ 0,

    S = Σ p φ(d),   M = Σ p (eᵈ − 1),
    KL = S − (M − log(1 + M)),   q − p = p (eᵈ − 1 − M) / (1 + M),

since  Σ p φ(log(q/p) + c) = KL + φ(c)  and  φ(c) = M − log(1 + M).  S has no negative term,
and φ(c) ≈ ½M² is small where c is chosen so that M is: nothing cancels.

Functions take `ops`, the operations that NumPy and PyTorch write differently, and the rows
of a block: arrays `(n, K)` for n examples, and columns `(n, 1)` with a number for each.
"""

from __future__ import annotations

import math
import sys
from typing import Any, Protocol

Rows = Any  #: `(n, K)`, an array of NumPy or a tensor of PyTorch
Column = Any  #: `(n, 1)`

REACH = 1.0  # the largest |d| at which φ(d) is computed by its series
FAR = 1.5  # the largest |d| in a row that is centered by the plain mean of d
CLIP = 2.0  # the bound of |d| in the clipped mean
BOUND = {"float32": 2.0**128 - 2.0**104, "float64": sys.float_info.max}  # the largest numbers

# ½x coth ½x = 1 + x² g(x²), where g(x²) = 1/12 − x²/720 + x⁴/30240 − …; these are the
# coefficients, in powers of x², of the polynomial that equals g at the Chebyshev points of
# [0, REACH²].
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
    def expm1(self, x: Any) -> Any: ...
    def where(self, condition: Any, x: Any, y: Any) -> Any: ...
    def clip(self, x: Rows, low: float, high: float) -> Rows: ...
    def row_sum(self, x: Rows) -> Column: ...
    def row_max(self, x: Rows) -> Column: ...
    def at_top(self, v: Rows, z: Rows) -> tuple[Column, Column]:
        """Return the largest v of each row, and z at that class."""

    def normalizer(self, exponentials: Rows) -> Column:
        """Return the sum of each row, whose largest numbers are 1."""

    def dtype_name(self, x: Any) -> str: ...

    expects_excluded: bool  #: whether to provide for excluded classes before one is seen

    def any(self, condition: Any) -> bool:
        """Whether a condition holds anywhere; True where values must not be read."""

    def all_within(self, x: Rows, bound: float) -> bool:
        """Whether |x| ≤ bound everywhere; False where values must not be read."""

    def select(self, condition: Rows) -> Selection: ...


def inverse_temperature(temperature: float, tiny: float, huge: float) -> float:
    """Return 1/τ, at most huge; 0 if it is below tiny, so that τ counts as infinite."""
    beta = min(1 / temperature, huge)
    return beta if beta >= tiny else 0.0


def times(ops: Operations, logits: Rows, factor: float) -> Rows:
    """Return logits times a factor of at least 0; what is excluded stays so."""
    return ops.where(logits == -math.inf, logits, logits * factor)


def at_own_temperature(ops: Operations, v: Rows, factor: float) -> Rows:
    """Return the teacher's logits times a factor, counted from the largest where that overflows.

    The factor may be no number of the dtype: it is applied in two steps.
    """
    root = 2.0 ** (math.frexp(factor)[1] // 2)

    def multiplied(logits: Rows) -> Rows:
        return times(ops, times(ops, logits, factor / root), root)

    x = multiplied(v)
    overflows = (abs(x) == math.inf) & (abs(v) < math.inf)
    if not ops.any(overflows):
        return x
    bound = BOUND[ops.dtype_name(v)]
    below_top = ops.clip(multiplied(v - ops.row_max(v)), -bound, 0.0)
    below_top = ops.where(v == -math.inf, v, below_top)
    return ops.where(ops.row_max(overflows), below_top, x)


def difference(
    ops: Operations, z: Rows, v: Rows, z_level: Column, v_level: Column, beta: float
) -> Rows:
    """Return z − v, counted from one level of each.

    That is (z − v) − (z_level − v_level), or (z − z_level) − (v − v_level) for classes where that
    is rounded less; both are exactly 0 for a class at both levels.
    """
    offset = z_level - v_level
    x = z - v
    x -= offset
    reach = ops.where(abs(offset) * beta > 1, abs(offset), 0.0)
    if ops.any(reach > 0):
        v_below = v - v_level
        x = ops.where(abs(v_below) < reach, (z - z_level) - v_below, x)
    return x


def loss_and_slope(
    ops: Operations, z: Rows, v: Rows, beta: float, scaled: bool
) -> tuple[Column, Rows, Column]:
    """Return τ²·KL, and the two factors of τ (q − p); or of KL and q − p if not scaled.

    Scaled results are sums of x = τd, a difference of logits, which no temperature makes
    underflow: p φ(d) τ² = p x² (φ(d)/d²).
    """
    unit = 1 / beta if scaled else 1.0
    pair = Pair(ops, z, v, beta)
    x = pair.x if scaled else pair.d
    p_expm1, p_phi = terms(pair, x, unit)
    m = ops.row_sum(p_expm1) / pair.total
    loss = _loss(pair, x, ops.row_sum(p_phi) / pair.total, m, unit)
    p_expm1 -= pair.p * m
    return loss, p_expm1, 1 / ((1 + m / unit) * pair.total)


class Pair:
    """The rows of both networks, compared.

    Attributes
    ----------
    p, total
        The teacher's probabilities up to their sum, the largest being 1, and that sum.
    x, d
        z − v = τ log(q/p) less a constant of each row, and d = βx.
    wide
        The entries with |d| > REACH, or None if there is none.
    """

    def __init__(self, ops: Operations, z: Rows, v: Rows, beta: float) -> None:
        self.ops, self.z, self.v, self.beta = ops, z, v, beta
        self.v_top, z_top = ops.at_top(v, z)
        p = v - self.v_top
        p *= beta
        self.p = ops.exp_(p)
        self.total = ops.normalizer(self.p)
        self.has_excluded = ops.expects_excluded
        self.wide = None
        self._center(z_top)
        if ops.all_within(self.d, REACH):
            return
        if not self.has_excluded and ops.any(self.d != self.d):  # nan
            self.has_excluded = True
            self._center(z_top)
        if not ops.all_within(self.d, FAR):
            self._center_rows_with_outliers(z_top)
        self.wide = ops.select(~(abs(self.d) <= REACH))

    def _center(self, z_top: Column) -> None:
        """Center by the mean of z − v under p, counted from the teacher's top class.

        Where that class has most of p, the mean is small, and would be rounded away if it were
        added to the level; elsewhere the mean may be large, and x is rounded less if it is.
        """
        mean = self._mean(self._difference(z_top))
        is_dominated = self.total < 2
        self.level = self.ops.where(is_dominated, z_top, z_top + mean)
        self.center = self.ops.where(is_dominated, mean, 0.0)
        self._compare()

    def _compare(self) -> None:
        """Set x and d from `level` and `center`."""
        self.x = self._difference(self.level)
        if self.ops.any(self.center != 0):
            self.x -= self.center
        self.d = self.x * self.beta

    def _difference(self, level: Column) -> Rows:
        """Return z − v, less the student's level and the teacher's top logit."""
        x = difference(self.ops, self.z, self.v, level, self.v_top, self.beta)
        if self.has_excluded:
            excluded = (self.z == -math.inf) & (self.v == -math.inf)
            x = self.ops.where(excluded, 0.0, x)
        return x

    def _mean(self, x: Rows) -> Column:
        return self.ops.row_sum(self.p * x) / self.total

    def _center_rows_with_outliers(self, z_top: Column) -> None:
        """Center anew the rows with |d| > FAR somewhere.

        A class with a tiny p and x → −∞ moves the plain mean, although it contributes only −p
        to M; so x is clipped to ±CLIP/β. Where the top class is the outlier, or an exponential
        may overflow, the level is the logarithm of Σ e^(βz) / Σ e^(βv), whose error is at most
        its rounding.
        """
        has_outlier = ~(self.ops.row_max(abs(self.d)) <= FAR)
        level, center = z_top, self._clipped_mean(z_top)
        z_max = self.ops.row_max(self.z)
        is_far_off = abs(center) * self.beta > CLIP / 2
        is_far_off = is_far_off | ((z_max - level) * self.beta > CLIP)
        if self.ops.any(is_far_off):
            q = self.ops.exp_((self.z - z_max) * self.beta)
            log_sum = self.ops.log(self.ops.row_sum(q) / self.total)
            level = self.ops.where(is_far_off, z_max + log_sum / self.beta, level)
            center = self._clipped_mean(level)
        self.level = self.ops.where(has_outlier, level, self.level)
        self.center = self.ops.where(has_outlier, center, self.center)
        self._compare()

    def _clipped_mean(self, level: Column) -> Column:
        x = self.ops.clip(self._difference(level), -CLIP / self.beta, CLIP / self.beta)
        return self._mean(x)

    def wide_exponentials(self) -> Any:
        """Return p eᵈ of the wide entries, each as one exponential.

        p may underflow, eᵈ overflow, and the logits of one network may be so large that
        their difference has no correct digit of the other's.
        """
        assert self.wide is not None
        exponent = self.wide.take(self.z) - self.wide.take_column(self.level)
        return self.ops.exp_((exponent - self.wide.take_column(self.center)) * self.beta)


def terms(pair: Pair, x: Rows, unit: float) -> tuple[Rows, Rows]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d) of all entries, where x = unit·d."""
    p_expm1, p_phi = _series(pair.p, x, pair.d, COTH[pair.ops.dtype_name(x)])
    if pair.wide is not None:
        wide_expm1, wide_phi = _wide_terms(pair, x, unit)
        p_expm1, p_phi = pair.wide.put(p_expm1, wide_expm1), pair.wide.put(p_phi, wide_phi)
    return p_expm1, p_phi


def _wide_terms(pair: Pair, x: Rows, unit: float) -> tuple[Any, Any]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d) of the wide entries, where x = unit·d."""
    assert pair.wide is not None
    p, x = pair.wide.take(pair.p), pair.wide.take(x)
    p_expm1 = unit * (pair.wide_exponentials() - p)
    return p_expm1, unit * (p_expm1 - product(pair.ops, p, x))


def product(ops: Operations, p: Rows, x: Rows) -> Rows:
    """Return p x, where 0·∞ = 0, but −∞ is unchanged even if p underflows."""
    return ops.where((p > 0) | (x == -math.inf), ops.where(x == -math.inf, x, p * x), 0.0)


def _series(p: Rows, x: Rows, d: Rows, coefficients: list[float]) -> tuple[Rows, Rows]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d), where x = unit·d and |d| ≤ REACH.

    With  h = ½ − d g(d²) = ½ − (½d coth ½d − 1)/d,
    eᵈ − 1 = d / (1 − d h)  and  φ(d) = d h (eᵈ − 1).
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


def _loss(pair: Pair, x: Rows, s: Column, m: Column, unit: float) -> Column:
    """Return unit²·KL = unit²·(S − (M − log(1 + M))), given s = unit²·S and m = unit·M.

    Where M is large it is  unit²·(log(1 + M) − Σ p d),  with x = unit·d, since d may overflow.
    """
    ops, plain_m = pair.ops, m / unit
    correction = _correction_ratio(ops, plain_m) * m * m
    if ops.any(s == math.inf):
        correction = ops.where(s == math.inf, 0.0, correction)
    loss = s - correction
    if pair.wide is not None and ops.any(plain_m > 1):  # then both are large
        mean = ops.row_sum(product(ops, pair.p, x)) / pair.total
        loss = ops.where(plain_m > 1, (ops.log1p(plain_m) * unit - mean) * unit, loss)
    loss *= loss > 0  # rounding does not make it negative; nan is unchanged
    return loss


def _correction_ratio(ops: Operations, m: Column) -> Column:
    """Return (M − log(1 + M)) / M²."""
    series = 0.5 - m * (1 / 3 - m / 4)
    return ops.where(abs(m) < 1e-4, series, (m - ops.log1p(m)) / (m * m))
