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

from kd_notes._comparison import BOUND, LARGE, Comparison, Side, minus_log1p_ratio, phi_ratio
from kd_notes._formulas import REACH, Rows, product

EXCLUDED = 10.0  # what counts as |y| in the gradient where only one network excludes a class


def reverse_kl(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms q φ(−y); h = y."""
    return _relative_entropy(compared.from_q), compared.slope(_finite(compared))


def jeffreys(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms (q − p) y / 2; the slope is half of both."""
    side, ops = compared.from_p, compared.ops
    near = side.w * side.t * side.t_expm1
    far = ops.where(abs(side.t) == math.inf, math.inf, (side.o - side.w) * side.t) * side.unit
    slope = compared.difference() + compared.slope(_finite(compared))
    return ops.where(side.is_near, near, far) / 2, slope / 2


def skew_kl(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms p ψ(a E)/a² with a = 1 − alpha, E = q/p − 1; h = E/(1 + a E).

    ψ(x) = x − log(1 + x).
    """
    side, a = compared.from_p, 1 - alpha
    mixture = _mixture(side, alpha, a)
    near, far = side.t_expm1 / mixture, side.expm1 / mixture * side.unit
    h = compared.ops.where(side.is_near, near, far)
    x = _ratio(compared)
    h = _either_end(compared, h, -x / (alpha * x + a) / a * side.unit)
    return _skewed(side, alpha, a) / a, compared.slope(h)


def skew_reverse_kl(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms q ψ(a E')/a² with a = 1 − alpha, E' = p/q − 1.

    With w = log(m/q) = −log1p(u), u = q/m − 1, h is −(a w + alpha ψ(u))/a².
    """
    side, ops, a = compared.from_q, compared.ops, 1 - alpha
    mixture, w = _mixture(side, alpha, a), _log_mixture(side, alpha, a)
    u, t_u = -side.expm1 * a / mixture, -side.t_expm1 * a / mixture
    psi_over_u = ops.where(abs(u) <= 0.5, u * minus_log1p_ratio(ops, u), 1 + w / u)
    near = t_u * (a * ops.where(u == 0, 1.0, -w / u) - alpha * psi_over_u)
    far = side.unit * (-a * w - alpha * psi_over_u * u)
    x = _ratio(compared) * (a / alpha)
    u = -x / (1 + x)
    psi = ops.where(abs(u) <= 0.5, u * u * minus_log1p_ratio(ops, u), u + ops.log1p(x))
    h = _either_end(compared, ops.where(side.is_near, near, far), -psi * side.unit) / a / a
    return _skewed(side, alpha, a) / a, compared.slope(h)


def jensen_shannon(compared: Comparison, beta: float) -> tuple[Rows, Rows]:
    """Return the terms p ψ((1−β) E)/(1−β) + q ψ(β E')/β; h = −log(m/q)/β."""
    side, ops = compared.from_q, compared.ops
    summands = _skewed(compared.from_p, beta, 1 - beta) + _skewed(side, 1 - beta, beta)
    w, u = _log_mixture(side, 1 - beta, beta), side.expm1 * beta
    near = side.t_expm1 * ops.where(u == 0, 1.0, w / u)
    h = ops.where(side.is_near, near, side.unit * w / beta)
    far = ops.log1p(_ratio(compared) * (beta / (1 - beta))) / beta * side.unit
    return summands, compared.slope(-_either_end(compared, h, far))


def alpha(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return the terms of the alpha-divergence from its nearer end; h = −(e^(−αy) − 1)/α."""
    ops, p, q, unit = compared.ops, compared.from_p, compared.from_q, compared.unit
    geometric, log = _geometric(compared, alpha)
    is_large = log > LARGE[ops.dtype_name(log)] / 2  # unit may be small
    summands = _powers(p, 1 - alpha, geometric) if alpha > 0.5 else _powers(q, alpha, geometric)
    large = ops.exp(log + 2 * math.log(unit)) / (alpha * (alpha - 1))
    y = q.y * alpha
    expm1 = ops.expm1(y)
    near = q.t * ops.where(y == 0, 1.0, expm1 / y)
    finite = ops.where(is_large, ops.exp(log + math.log(unit)), unit * geometric)
    finite = _without_infinity(compared, finite)
    far = ops.where(abs(y) <= REACH, unit * q.w * expm1, finite - unit * q.w) / alpha
    h = ops.where(q.is_near, near, unit * expm1 / alpha)
    if alpha > 0:
        h = _either_end(compared, h, unit * ops.exp(y) / alpha, alpha)
        far = _either_end(compared, far, finite / alpha, alpha)
    return ops.where(is_large, large, summands), compared.slope(-h, -far)


def total_variation(compared: Comparison, _: float) -> tuple[Rows, Rows]:
    """Return the terms |q − p|/2; h = sign(q − p)/2."""
    ops, t = compared.ops, compared.from_p.t
    sign = ops.where(t > 0, 0.5, ops.where(t < 0, -0.5, 0.0 * t))
    summands = abs(compared.difference()) / 2
    if compared.unit > BOUND[ops.dtype_name(t)] ** 0.77:  # it stands for an infinite temperature
        summands = ops.where(abs(t) == math.inf, math.inf, summands)
    return summands, compared.slope(sign)


FORMULAS: dict[str, Callable[[Comparison, float], tuple[Rows, Rows]]] = {
    "reverse_kl": reverse_kl,
    "jeffreys": jeffreys,
    "skew_kl": skew_kl,
    "skew_reverse_kl": skew_reverse_kl,
    "jensen_shannon": jensen_shannon,
    "alpha": alpha,
    "total_variation": total_variation,
}


def _either_end(compared: Comparison, near: Rows, far: Rows, power: float = 1) -> Rows:
    """Return h, counted from its value at x = 0 where the student has left the teacher.

    Most of q then is where a power of x = p/q is small, and h hardly differs between such classes.
    """
    q = compared.from_q
    has_left = compared.ops.row_sum(product(compared.ops, q.w, -q.y)) * power > 1
    return compared.ops.where(has_left, far, near)


def _ratio(compared: Comparison) -> Rows:
    """Return x = p/q, or what is large but finite."""
    side = compared.from_q
    return compared.ops.exp(
        compared.ops.clip(side.y, -math.inf, LARGE[compared.ops.dtype_name(side.y)])
    )


def _finite(compared: Comparison) -> Rows:
    """Return unit·y, where ±EXCLUDED stands for an infinite y."""
    ops, side = compared.ops, compared.from_p
    excluded = ops.clip(side.y, -EXCLUDED, EXCLUDED) * compared.unit
    return ops.where(abs(side.t) == math.inf, excluded, side.t)


def _relative_entropy(side: Side) -> Rows:
    """Return the terms w φ(y), which add up to KL(w, o)."""
    ops, unit = side.ops, side.unit
    near = side.w * side.t * side.t * phi_ratio(ops, side.y)
    far = unit * (side.o - side.w) - product(ops, side.w, side.t)
    return ops.where(side.is_near, near, far * unit)


def _skewed(side: Side, alpha: float, a: float) -> Rows:
    """Return the terms w ψ(a E)/a, E = o/w − 1, of KL(w, alpha w + a o)/a for a = 1 − alpha."""
    ops, u = side.ops, side.expm1 * a
    near = side.w * side.t_expm1 * side.t_expm1 * a * minus_log1p_ratio(ops, u)
    middle = side.w * u * u * minus_log1p_ratio(ops, u)
    far = (side.o - side.w) * a - product(ops, side.w, _log_mixture(side, alpha, a))
    far = ops.where(abs(u) <= 0.5, middle, far) / a
    return side.either(side.is_near & (abs(u) <= 0.5), near, far)


def _mixture(side: Side, alpha: float, a: float) -> Rows:
    """Return alpha + a eʸ for a = 1 − alpha, the mixture's share of w."""
    u = side.expm1 * a
    return side.ops.where(u < -0.5, alpha + a * side.ops.exp(side.y), 1 + u)


def _log_mixture(side: Side, alpha: float, a: float) -> Rows:
    """Return log(alpha + a eʸ) for a = 1 − alpha."""
    ops, u = side.ops, side.expm1 * a
    large = LARGE[ops.dtype_name(u)] - 20
    log = ops.where(u < -0.5, ops.log(alpha + a * ops.exp(side.y)), ops.log1p(u))
    return ops.where(side.y > large, side.y + math.log(a), log)


def _powers(side: Side, c: float, geometric: Rows) -> Rows:
    """Return the terms w (φ(c y) − c φ(y)) / (c (c − 1)) for c ≤ 1/2, given w e^(c y)."""
    ops, y = side.ops, side.y
    ratio = (phi_ratio(ops, y) - c * phi_ratio(ops, c * y)) / (1 - c)
    near = side.w * side.t * side.t * ratio
    expm1 = ops.where(abs(c * y) <= REACH, side.w * ops.expm1(c * y), geometric - side.w)
    return side.either(side.is_near, near, ((side.o - side.w) - expm1 / c) / (1 - c))


def _geometric(compared: Comparison, alpha: float) -> tuple[Rows, Rows]:
    """Return p^alpha q^(1 − alpha), from the larger of both, and its logarithm."""
    ops, p, q = compared.ops, compared.from_p, compared.from_q
    w, log_w = ops.where(p.y > 0, q.w, p.w), ops.where(p.y > 0, q.log_w, p.log_w)
    exponent = ops.where(p.y > 0, alpha * q.y, (1 - alpha) * p.y)
    large, log = LARGE[ops.dtype_name(w)] / 2, log_w + exponent
    is_moderate = (log_w > -large) & (abs(exponent) < large)  # then it is rounded less so:
    return ops.where(is_moderate, w * ops.exp(exponent), ops.exp(log)), log


def _without_infinity(compared: Comparison, geometric: Rows) -> Rows:
    """Return unit·p^alpha q^(1 − alpha), finite where it overflows or a class is excluded."""
    ops, p, q = compared.ops, compared.from_p, compared.from_q
    excluded = (abs(p.y) == math.inf) & (geometric == math.inf)
    finite = ops.where(excluded, (p.w + q.w) * (math.exp(EXCLUDED) * compared.unit), geometric)
    return ops.clip(finite, 0.0, BOUND[ops.dtype_name(q.w)])
