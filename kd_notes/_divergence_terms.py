"""The divergences other than forward KL, and their gradients, for NumPy and for PyTorch.

A divergence D = Σ q f(p/q), divided by f''(1), is a sum of terms without a negative one, each
with a double zero at y = log(q/p) = 0; so they are written as y² times a ratio. Its gradient is
∂D/∂z = β q (h − Σ q h)  with  h = f(x) − x f'(x),  x = p/q.

With t = τy, a scaled term is t² times the ratio where |y| is small, and τ² times the term
elsewhere.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from kd_notes._comparison import (
    LARGE,
    Comparison,
    Side,
    minus_log1p_ratio,
    phi_ratio,
    quotient,
)
from kd_notes._formulas import BOUND, REACH, Column, Operations, Rows, product

MUCH = 40.0  # eʸ for such a y is so much more than 1 that this does not count beside it
EXCLUDED = 10.0  # what counts as |y| in the gradient where only one network excludes a class


def reverse_kl(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms q φ(−y); h = −log x."""
    return _relative_entropy(compared.from_q), compared.slope(-_log_x(compared))


def jeffreys(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms (q − p) y / 2; the slope is half of forward and reverse."""
    side, ops = compared.from_p, compared.ops
    near = side.w * side.t * side.expm1()[1]
    far = ops.where(abs(side.t) == math.inf, math.inf, (side.o - side.w) * side.t) * side.unit
    slope = compared.difference() + compared.slope(-_log_x(compared))
    return ops.where(side.is_near, near, far) / 2, slope / 2


def skew_kl(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms p ψ(a E)/a² with a = 1 − alpha, E = q/p − 1; h = −x/(alpha x + a)/a.

    ψ(x) = x − log(1 + x).
    """
    a, x = 1 - alpha, compared.x()
    m, m_top = alpha * x + a, alpha * compared.x_top + a
    _, h = compared.from_top(x, m)
    h /= -m_top
    qh = -compared.above_top() / m / m_top
    return _skewed(compared.from_p, alpha, a) / a, compared.slope(h, qh, _is_of_p(compared, alpha))


def skew_reverse_kl(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms q ψ(a E')/a² with a = 1 − alpha, E' = p/q − 1.

    With m = alpha + a x, h = −(log m + alpha/m)/a². Less its value at the top class that is
    −(log(m/m_top) + (alpha/m_top) v)/a² = −ψ(v)/a² − (x_top/m_top) g  with  g = (x − x_top)/m,
    v = −a g.
    """
    ops, a, x = compared.ops, 1 - alpha, compared.x()
    m, m_top = alpha + a * x, alpha + a * compared.x_top
    g, t_g = compared.from_top(x, m)
    v = -a * g
    near = -t_g * (g * minus_log1p_ratio(ops, v) + compared.x_top / m_top)
    far = _log_ratio(compared, m, m_top, a, -v * (m / m_top)) + alpha / m_top * v
    h = ops.where(abs(v) <= 0.5, near, -compared.unit * far / a / a)
    return _skewed(compared.from_q, alpha, a) / a, compared.slope(h)


def jensen_shannon(compared: Comparison, beta: float) -> tuple[Rows, Rows]:
    """Return the terms p ψ((1−β) E)/(1−β) + q ψ(β E')/β; h = −log(1 − β + β x)/β."""
    ops, p, q, x = compared.ops, compared.from_p, compared.from_q, compared.x()
    m, m_top = 1 - beta + beta * x, 1 - beta + beta * compared.x_top
    g, t_g = compared.from_top(x, m_top)
    u = beta * g
    log = _log_ratio(compared, m, m_top, beta, u)
    h = ops.where(u > 1, compared.unit * log / beta, t_g * quotient(ops, log, u))
    qh = compared.above_top() / m_top * quotient(ops, log, u)
    summands = _skewed(p, beta, 1 - beta) + _skewed(q, 1 - beta, beta)
    return summands, compared.slope(-h, -qh, _is_of_p(compared, beta))


def alpha(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms of the alpha-divergence from its nearer end; h = −x^alpha/alpha."""
    ops, p, q, unit = compared.ops, compared.from_p, compared.from_q, compared.unit
    geometric, log = _geometric(compared, alpha)
    is_large = log > LARGE[ops.dtype_name(log)] / 2  # unit may be small
    summands = _powers(p, 1 - alpha, geometric) if alpha > 0.5 else _powers(q, alpha, geometric)
    large = ops.exp(log + 2 * math.log(unit)) / (alpha * (alpha - 1))
    bound = BOUND[ops.dtype_name(log)] / max(1.0, unit)
    power_top = ops.clip(ops.exp(alpha * compared.log_x_top), 0.0, bound)
    y = alpha * compared.y_top
    expm1 = ops.expm1(y)
    near = power_top * compared.t_top * quotient(ops, expm1, y)
    far = (ops.exp(alpha * q.y) - power_top) / alpha
    far = unit * ops.where(abs(y) <= REACH, power_top * (expm1 / alpha), far)
    h = ops.where(abs(compared.y_top) <= REACH, near, far)
    q_top = unit * (q.w * power_top)
    finite = ops.where(is_large, ops.exp(log + math.log(unit)), unit * geometric)
    far = (_without_infinity(compared, finite) - q_top) / alpha
    qh = ops.where(abs(y) <= REACH, q_top * (expm1 / alpha), far)
    is_given = (q.y > REACH) | (abs(h) > BOUND[ops.dtype_name(log)])
    return ops.where(is_large, large, summands), compared.slope(-h, -qh, is_given)


def total_variation(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms |q − p|/2; h = sign(q − p)/2."""
    slope = slope_of_signs(compared.ops, compared.from_p.t, compared.from_q.w)
    return abs(compared.difference()) / 2, slope


def slope_of_signs(ops: Operations, t: Rows, q: Rows) -> Rows:
    """Return q (h − Σ q h) for h = sign(t)/2, which is a sum over q."""
    above = ops.row_sum(ops.where(t > 0, q, 0.0))
    below = ops.row_sum(ops.where(t < 0, q, 0.0))
    equal = ops.row_sum(ops.where(t == 0, q, 0.0)) / 2
    from_mean = ops.where(t == 0, (below - above) / 2, 0.0 * t)
    from_mean = ops.where(t > 0, below + equal, ops.where(t < 0, -(above + equal), from_mean))
    return q * from_mean


FORMULAS: dict[str, Callable[[Comparison, float], tuple[Rows, Rows]]] = {
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "jensen_shannon": jensen_shannon,
    "alpha": alpha,
    "total_variation": total_variation,
}


def _log_x(compared: Comparison) -> Rows:
    """Return unit·log(x/x_top), where ±EXCLUDED stands for an infinite logarithm."""
    ops, t = compared.ops, compared.t_top
    excluded = ops.clip(compared.y_top, -EXCLUDED, EXCLUDED) * compared.unit
    return ops.where(abs(t) == math.inf, excluded, t)


def _is_of_p(compared: Comparison, weight: float) -> Rows:
    """Whether q h is nearly −p, where the teacher's small weight leaves the mixture to q.

    It is rounded as p is then; as the product of q and h, as the logarithm of either.
    """
    log_x = compared.from_q.y
    return (log_x > REACH) & (log_x + math.log(weight) < 0)


def _log_ratio(compared: Comparison, m: Rows, m_top: Column, a: float, u: Rows) -> Rows:
    """Return log(m/m_top) of mixtures m = 1 − a + a x, where m/m_top = 1 + u may overflow."""
    ops, log_ax = compared.ops, compared.from_q.y + math.log(a)
    log = ops.where(u < -0.5, ops.log(m / m_top), ops.log1p(u))
    is_large = (log_ax > MUCH) | (u == math.inf)
    return ops.where(is_large, log_ax - ops.log(m_top), log)


def _relative_entropy(side: Side) -> Rows:
    """Return the terms w φ(y), which add up to KL(w, o)."""
    ops, unit = side.ops, side.unit
    near = side.w * side.t * side.t * phi_ratio(ops, side.y)
    far = unit * (side.o - side.w) - product(ops, side.w, side.t)
    return ops.where(side.is_near, near, far * unit)


def _skewed(side: Side, alpha: float, a: float) -> Rows:
    """Return the terms w ψ(a E)/a, E = o/w − 1, of KL(w, alpha w + a o)/a for a = 1 − alpha."""
    ops, (expm1, t_expm1) = side.ops, side.expm1()
    u = expm1 * a
    ratio = minus_log1p_ratio(ops, u)
    log = ops.where(u < -0.5, ops.log(alpha + a * ops.exp(side.y)), ops.log1p(u))
    log = ops.where(u > 1e18, side.y + math.log(a), log)  # the exponential may overflow
    far = (side.o - side.w) - product(ops, side.w, log) / a
    far = ops.where(abs(u) <= 0.5, side.w * expm1 * u * ratio, far)
    near = side.w * t_expm1 * t_expm1 * a * ratio
    return side.either(side.is_near & (abs(u) <= 0.5), near, far)


def _powers(side: Side, c: float, geometric: Rows) -> Rows:
    """Return the terms w (φ(c y) − c φ(y)) / (c (c − 1)) for c ≤ 1/2, given w e^(c y)."""
    ops, y = side.ops, side.y
    ratio = (phi_ratio(ops, y) - c * phi_ratio(ops, c * y)) / (1 - c)
    near = side.w * side.t * side.t * ratio
    small = side.w * (ops.expm1(c * y) / c)
    far = (side.o - side.w) - ops.where(abs(c * y) <= REACH, small, (geometric - side.w) / c)
    return side.either(side.is_near, near, far / (1 - c))


def _geometric(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return p^alpha q^(1 − alpha), from the larger of both, and its logarithm."""
    ops, p, q = compared.ops, compared.from_p, compared.from_q
    w, log_w = ops.where(p.y > 0, q.w, p.w), ops.where(p.y > 0, q.log_w, p.log_w)
    exponent = ops.where(p.y > 0, alpha * q.y, (1 - alpha) * p.y)
    log = ops.where(exponent == math.inf, math.inf, log_w + exponent)
    large = LARGE[ops.dtype_name(w)] / 2
    is_moderate = (log_w > -large) & (abs(exponent) < large)  # then it is rounded less so:
    return ops.where(is_moderate, w * ops.exp(exponent), ops.exp(log)), log


def _without_infinity(compared: Comparison, geometric: Rows) -> Rows:
    """Return unit·p^alpha q^(1 − alpha), finite where it overflows or a class is excluded."""
    ops, p, q = compared.ops, compared.from_p, compared.from_q
    excluded = (abs(p.y) == math.inf) & (geometric == math.inf)
    finite = ops.where(excluded, (p.w + q.w) * (math.exp(EXCLUDED) * compared.unit), geometric)
    return ops.clip(finite, 0.0, BOUND[ops.dtype_name(q.w)])
