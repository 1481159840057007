"""Both networks compared class by class, for the divergences other than forward KL.

For a class, y = log(q/p), to full precision. Scaled results are sums of t = τy, a difference of
logits, which no temperature makes underflow.
"""

from __future__ import annotations

import math
from typing import Any

from kd_notes._formulas import (
    BOUND,
    COTH,
    REACH,
    Column,
    Operations,
    Pair,
    Rows,
    difference,
    terms,
)

LARGE = {"float32": 88.0, "float64": 709.0}  # eʸ is finite up to here
SMALLER = 2.0**-40  # times so much, no sum over the classes overflows
TERMS = {"float32": 7, "float64": 17}  # of the series of log1p


class Side:
    """One network's probabilities w beside the other's o.

    Attributes
    ----------
    w, o, log_w
        Probabilities, and the logarithm of w.
    y, t, unit
        y = log(o/w) and t = unit·y.
    is_near
        Where |y| is small.
    """

    def __init__(
        self, ops: Operations, w: Rows, o: Rows, log_w: Rows, y: Rows, t: Rows, unit: float
    ) -> None:
        self.ops, self.w, self.o, self.log_w = ops, w, o, log_w
        self.y, self.t, self.unit = y, t, unit
        self.is_near = abs(y) <= REACH

    def expm1(self) -> tuple[Rows, Rows]:
        """Return eʸ − 1, large but finite where eʸ overflows; and unit times it where near."""
        expm1 = self.ops.expm1(
            self.ops.clip(self.y, -math.inf, LARGE[self.ops.dtype_name(self.y)])
        )
        return expm1, self.t * quotient(self.ops, expm1, self.y)

    def either(self, is_near: Rows, near: Rows, far: Rows) -> Rows:
        """Return unit²·far where y is not small."""
        return self.ops.where(is_near, near, far * self.unit * self.unit)


class Comparison:
    """Both networks' probabilities, and the logarithm of their ratio, to full precision.

    With d = y + c and M of `_formulas.py`, y = d − log(1 + M) where |y| is small. Elsewhere it
    is the difference of both networks' log-softmaxes, which is rounded less.

    Attributes
    ----------
    from_p, from_q
        Either network beside the other.
    x_top, log_x_top
        x = p/q of the student's top class, and its logarithm.
    y_top, t_top
        log(x/x_top), and unit times it.
    """

    def __init__(self, ops: Operations, z: Rows, v: Rows, beta: float, scaled: bool) -> None:
        self.ops, self.unit = ops, 1 / beta if scaled else 1.0
        self._set_sides(Pair(ops, z, v, beta), scaled)
        z_top, v_there = ops.at_top(z, v)
        from_top = difference(ops, v, z, v_there, z_top, beta)
        is_undefined = (z == -math.inf) | ((v == -math.inf) & (v_there == -math.inf))
        from_top = ops.where(is_undefined, 0.0, from_top)
        self.y_top = from_top * beta
        self.t_top = from_top if scaled else self.y_top
        self.log_x_top = ops.at_top(z, self.from_q.y)[1]
        self.x_top = ops.exp(self.log_x_top)

    def _set_sides(self, pair: Pair, scaled: bool) -> None:
        ops, unit, beta = self.ops, self.unit, pair.beta
        x = pair.x if scaled else pair.d
        m = ops.row_sum(terms(pair, x, unit)[0]) / pair.total
        plain_m = m / unit
        t = x - m * quotient(ops, ops.log1p(plain_m), plain_m)
        y = t * beta if scaled else t
        is_near = abs(y) <= REACH
        below_z, below_v = pair.z - ops.row_max(pair.z), pair.v - pair.v_top
        exp_z = ops.exp(below_z * beta)
        total_z = ops.normalizer(exp_z)
        log_ratio = ops.log(pair.total / total_z)
        y = ops.where(is_near, y, _minus(ops, below_z, below_v, beta) + log_ratio)
        far_t = _minus(ops, below_z, below_v, 1.0) + unit * log_ratio if scaled else y
        t = ops.where(is_near, t, far_t)
        p = pair.p / pair.total
        q = ops.where(is_near, p * (1 + ops.expm1(y)), exp_z / total_z)
        log_p, log_q = below_v * beta - ops.log(pair.total), below_z * beta - ops.log(total_z)
        self.from_p = Side(ops, p, q, log_p, y, t, unit)
        self.from_q = Side(ops, q, p, log_q, -y, -t, unit)

    def difference(self) -> Rows:
        """Return unit·(q − p)."""
        side = self.from_p
        far = self.unit * (side.o - side.w)
        return self.ops.where(side.is_near, side.w * side.expm1()[1], far)

    def x(self) -> Rows:
        """Return x = p/q, large but finite where it overflows."""
        log = self.from_q.y
        return self.ops.exp(self.ops.clip(log, -math.inf, LARGE[self.ops.dtype_name(log)]))

    def from_top(self, x: Rows, divisor: Rows) -> tuple[Rows, Rows]:
        """Return (x − x_top)/divisor, and unit times it."""
        ops, y = self.ops, self.y_top
        expm1, is_near = ops.expm1(y), abs(y) <= REACH
        plain = ops.where(is_near, self.x_top * expm1, x - self.x_top) / divisor
        near = self.x_top * self.t_top * quotient(ops, expm1, y) / divisor
        return plain, ops.where(is_near, near, plain * self.unit)

    def slope(self, h: Rows, qh: Rows | None = None, is_given: Rows | None = None) -> Rows:
        """Return q (h − Σ q h), where h is 0 for the student's top class.

        So no rounding of h counts that does not for the top class. The mean of what is left after
        a first one is small. For a small q, q h may be given, since h may overflow.
        """
        ops, q, log_q = self.ops, self.from_q.w, self.from_q.log_w
        bound = BOUND[ops.dtype_name(q)]
        is_apart = abs(h) > bound
        h = ops.where(log_q > -math.inf, ops.clip(h, -bound, bound), 0.0)
        q_h = q * h
        is_tiny = log_q < -LARGE[ops.dtype_name(q)] + 2  # q may have lost digits
        if ops.any(is_tiny):
            size = ops.exp(log_q + ops.log(abs(h)))
            q_h = ops.where(is_tiny, ops.where(h < 0, -size, size), q_h)
            is_apart = is_apart | is_tiny
        if qh is not None:
            q_h, is_apart = ops.where(is_given, qh, q_h), is_apart | is_given
        base = self._bounded_sum(q_h, bound)
        from_base = ops.clip(ops.where(is_apart, q_h - q * base, q * (h - base)), -bound, bound)
        mean = self._bounded_sum(from_base, bound)
        return ops.clip(from_base - q * mean, -bound, bound)

    def above_top(self) -> Rows:
        """Return unit·(p − q x_top), which is q (x − x_top), from p where that is much larger."""
        return self.unit * (self.from_p.w - self.from_q.w * self.x_top)

    def _bounded_sum(self, x: Rows, bound: float) -> Column:
        """Return the sum of each row, to which large numbers of both signs may add up."""
        ops = self.ops
        total = ops.row_sum(x)
        if ops.any(~(abs(total) <= bound)):
            x = ops.clip(x, -bound, bound)
            total, smaller = ops.row_sum(x), ops.row_sum(x * SMALLER) / SMALLER
            total = ops.clip(ops.where(abs(total) <= bound, total, smaller), -bound, bound)
        return total


def quotient(ops: Operations, f: Rows, x: Rows) -> Rows:
    """Return f/x for a function f of x that is near x, and 1 where both are 0."""
    return ops.where(x == 0, 1.0, f / x)


def _minus(ops: Operations, x: Rows, y: Rows, beta: float) -> Rows:
    """Return βx − βy, where −∞ − −∞ = 0 and βx may overflow."""
    difference = ops.where(x == y, 0.0, x * beta - y * beta)
    return ops.where(difference == difference, difference, (x - y) * beta)


def phi_ratio(ops: Operations, y: Rows) -> Rows:
    """Return φ(y)/y² = (eʸ − 1 − y)/y²; where |y| ≤ REACH as `_formulas.py`."""
    square = y * y
    h = 0.5 - y * _polynomial(square, COTH[ops.dtype_name(y)])
    return ops.where(abs(y) <= REACH, h / (1 - y * h), (ops.expm1(y) - y) / square)


def minus_log1p_ratio(ops: Operations, x: Rows) -> Rows:
    """Return (x − log(1 + x))/x² for |x| ≤ 1/2.

    With r = 1/(2 + x) and y = x r, log1p(x) = 2 artanh(y) = 2 (y + y³/3 + y⁵/5 + …), and
    x − 2y = x y, so that the ratio is r (1 − 2 r y (1/3 + y²/5 + …)).
    """
    r = 1 / (2 + x)
    y = x * r
    series = _polynomial(y * y, [1 / (2 * n + 3) for n in range(TERMS[ops.dtype_name(x)])])
    return r * (1 - 2 * r * y * series)


def _polynomial(x: Rows, coefficients: list[float]) -> Any:
    *lower, highest = coefficients
    total = x * highest
    for coefficient in reversed(lower[1:]):
        total += coefficient
        total *= x
    total += lower[0]
    return total
