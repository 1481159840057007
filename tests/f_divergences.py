"""The divergences by their definitions, with mpmath, their gradients and condition numbers.

With x = p/q a class has the value q f(x), h = f(x) − x f'(x) and k = x² f''(x), f divided by
f''(1). Then, at temperature 1,

    dD/dz_i = q_i (h_i − mean h),                      mean: under q,
    dD/dv_i = x_i q_i f'(x_i) − p_i Σ x q f'(x),       x f'(x) = f(x) − h,
    d²D/dz_i dz_j = q_i (δ_ij c_i − q_j (c_i + c_j − mean c)),   c = h − mean h + k,
    d²D/dz_i dv_j = −q_i (δ_ij k_i − p_j k_i − k_j q_j + p_j mean k).
"""

from operator import mul

from mpmath import mp
from numpy import inf
from rows import Reference, at_infinity, digits, largest, size_of, softmax_of, weighted

from kd_notes.divergences import (
    Alpha,
    Jeffreys,
    JensenShannon,
    ReverseKL,
    SkewKL,
    SkewReverseKL,
    TotalVariation,
)


def reverse_kl(p, q, log_x, _):
    return -q * log_x, 1 - log_x, mp.one


def jeffreys(p, q, log_x, _):
    x = mp.exp(log_x)
    return (p - q) * log_x / 2, (1 - log_x - x) / 2, (1 + x) / 2


def jensen_shannon(p, q, log_x, divergence):
    beta = mp.mpf(divergence.beta)
    share = beta * mp.exp(log_x) + 1 - beta  # of the mixture, over q
    value = p * (log_x - mp.log(share)) / (1 - beta) - q * mp.log(share) / beta
    return value, -mp.log(share) / beta, mp.exp(log_x) / share


def skew_kl(p, q, log_x, divergence):
    alpha, x = mp.mpf(divergence.alpha), mp.exp(log_x)
    share, second = alpha * x + 1 - alpha, (1 - alpha) ** 2
    h = (1 - x) / share - 1 / (1 - alpha)
    return p * (log_x - mp.log(share)) / second, h, x / share**2


def skew_reverse_kl(p, q, log_x, divergence):
    alpha, x = mp.mpf(divergence.alpha), mp.exp(log_x)
    share, second = alpha + (1 - alpha) * x, (1 - alpha) ** 2
    h = -(mp.log(share) + alpha / share - 1) / second
    return -q * mp.log(share) / second, h, (x / share) ** 2


def alpha(p, q, log_x, divergence):
    order = mp.mpf(divergence.alpha)
    power = mp.exp(order * log_x)
    second = order * (order - 1)
    return q * (power - 1) / second, -power / order - 1 / second, power


def total_variation(p, q, log_x, _):
    return abs(q - p) / 2, mp.sign(q - p) / 2, mp.zero


DEFINITIONS = {
    ReverseKL: reverse_kl,
    Jeffreys: jeffreys,
    JensenShannon: jensen_shannon,
    SkewKL: skew_kl,
    SkewReverseKL: skew_reverse_kl,
    Alpha: alpha,
    TotalVariation: total_variation,
}


def reference_of_row(row):
    """Return the reference of a row in blocks; no class may be excluded by one network alone."""
    with mp.workdps(2 * digits(row)):
        z, v = ([mp.mpf(x) for x in logits.tolist()] for logits in (row.z, row.v))
        n = row.counts.tolist()
        if row.tau == inf:  # the same of all that are smooth
            return at_infinity(z, v, n)
        return reference(row.divergence, z, v, n, mp.mpf(row.tau), row.scaled)


def reference(divergence, z, v, n, tau, scaled=True):
    """Return loss, gradient and both condition numbers of blocks of n equal classes each."""
    (q, log_q), (p, log_p) = softmax_of(z, n, tau), softmax_of(v, n, tau)
    grad = [mp.zero] * len(z)
    kept = [i for i, log in enumerate(log_q) if max(log, log_p[i]) > -mp.inf]
    z, v, n, q, p, log_q, log_p = ([x[i] for i in kept] for x in (z, v, n, q, p, log_q, log_p))
    log_x = [a - b for a, b in zip(log_p, log_q, strict=True)]
    define = DEFINITIONS[type(divergence)]
    parts = [define(*args, divergence) for args in zip(p, q, log_x, strict=True)]
    values, h, k = zip(*parts, strict=True)
    loss, mean = weighted(n, values), weighted(n, map(mul, q, h))
    slope = [a * (b - mean) for a, b in zip(q, h, strict=True)]
    loss_condition = mp.zero
    if loss:
        moved = [value - a * b for value, a, b in zip(values, q, h, strict=True)]
        total = weighted(n, moved)
        by_teacher = [a - b * total for a, b in zip(moved, p, strict=True)]
        loss_condition = (size_of(slope, z, n) + size_of(by_teacher, v, n)) / tau / loss
    bends = _bends(p, q, [a - mean + b for a, b in zip(h, k, strict=True)], k, z, v, n)
    grad_condition = largest(bends) / tau / largest(slope) if any(slope) else mp.zero
    unit = (tau if isinstance(divergence, TotalVariation) else tau**2) if scaled else mp.one
    for i, s in zip(kept, slope, strict=True):
        grad[i] = unit / tau * s
    return Reference(unit * loss, grad, loss_condition, grad_condition)


def _bends(p, q, c, k, z, v, n):
    """Return the row sums of |d²D/dz_i dz_j z_j| + |d²D/dz_i dv_j v_j|."""
    mean_c, mean_k = weighted(n, map(mul, q, c)), weighted(n, map(mul, q, k))
    classes = range(len(p))
    for i in classes:
        by_z = [-q[i] * q[j] * (c[i] + c[j] - mean_c) for j in classes]
        by_v = [q[i] * (p[j] * (k[i] - mean_k) + k[j] * q[j]) for j in classes]
        moves = zip(by_z, z, by_v, v, strict=True)
        beside = weighted(n, (abs(a * x) + abs(b * y) for a, x, b, y in moves))
        own = abs(q[i] * c[i] + by_z[i]) - abs(by_z[i]), abs(by_v[i] - q[i] * k[i]) - abs(by_v[i])
        yield beside + own[0] * abs(z[i]) + own[1] * abs(v[i])
