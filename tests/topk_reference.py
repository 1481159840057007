"""The losses of a teacher of k classes by their definition, with mpmath, and their conditions.

At temperature 1, with the student's probabilities q, those of the teacher p = exp(v − N) in S,
P and Q their sums over S, and the student's r = q / (1 − Q) within the rest,

    L = Σ_S p log(p/q) + (1 − P) log((1 − P)/(1 − Q)),
    dL/dz = q − p in S,  q − (1 − P) r in the rest,
    dL/dv = p (log(p/q) − log((1 − P)/(1 − Q))),    dL/dN = −Σ dL/dv.

A condition number is how much relative changes of all inputs, z, v and N, are magnified:
Σ |dL/dx x| / L for the loss, and for the gradient g the largest Σ |dg_i/dx x| / max |g|. N
is exact where it is not given. Renormalized, N is log Σ exp(v), and depends on v.
"""

from mpmath import mp
from rows import Reference, largest, size_of, softmax_of, weighted


def reference(z, v, n, k, log_normalizer, tau, scaled=True):
    """Return loss, gradient and condition numbers for the k classes of S and blocks of others.

    The student's logits z are those of S first, in the order of the teacher's v, then one
    for each block of n equal classes. Without a `log_normalizer` the teacher is renormalized.
    """
    counts = [1] * k + n
    q, log_q = softmax_of(z, counts, tau)
    v_top = max(v)
    is_renormalized = log_normalizer is None
    if is_renormalized:
        log_normalizer = v_top / tau + mp.log(sum(mp.exp((x - v_top) / tau) for x in v))
    log_p = [x / tau - log_normalizer for x in v]
    p = [mp.exp(x) for x in log_p]
    rest = mp.zero if is_renormalized else 1 - sum(p)
    q_rest = weighted(n, q[k:])
    log_ratio = mp.log(rest / q_rest) if rest else mp.zero
    ratio = [a - b if a > -mp.inf else mp.zero for a, b in zip(log_p, log_q[:k], strict=True)]
    loss = weighted(p, ratio) + rest * log_ratio
    r = [x / q_rest if q_rest else mp.zero for x in q[k:]]
    slope = [a - b for a, b in zip(q, p, strict=False)]
    slope += [a - rest * b for a, b in zip(q[k:], r, strict=True)]
    level = loss if is_renormalized else log_ratio
    by_v = [a * (b - level) for a, b in zip(p, ratio, strict=True)]
    by_normalizer = mp.zero if is_renormalized else abs(sum(by_v) * log_normalizer * tau)
    size = size_of(slope, z, counts) + size_of(by_v, v, [1] * k) + by_normalizer
    loss_condition = size / tau / loss if 0 < loss < mp.inf else mp.zero
    bends = largest(
        _bends(q, p, r, rest, q_rest, z, v, n, k, log_normalizer * tau, is_renormalized)
    )
    grad_condition = bends / tau / largest(slope) if any(slope) else mp.zero
    loss, unit = (tau**2 * loss, tau) if scaled else (loss, 1 / tau)
    return Reference(loss, [unit * x for x in slope], loss_condition, grad_condition)


def _bends(q, p, r, rest, q_rest, z, v, n, k, normalizer, is_renormalized):
    """Return the row sums of |dg_i/dz_j z_j| + |dg_i/dv_j v_j| + |dg_i/dN N|."""
    counts = [1] * k + n
    size_z, size_v = size_of(q, z, counts), size_of(p, v, [1] * k)
    size_r = size_of(r, z[k:], n)
    for i in range(k):
        by_z = q[i] * (size_z + (1 - 2 * q[i]) * _size(z[i]))
        own = p[i] * _size(v[i])
        if is_renormalized:
            yield by_z + p[i] * size_v + (1 - 2 * p[i]) * own
        else:
            yield by_z + own + p[i] * abs(normalizer)
    for i, r_i in enumerate(r, k):
        # dg_i/dz_j: −q_i q_j in S; r_i r_j (rest − q_rest²) and, for i itself, r_i (q_rest − rest)
        inside = q[i] * (size_z - size_of(q[k:], z[k:], n))
        bend = rest - q_rest**2
        own = abs(r_i * (q_rest - rest) + r_i * r_i * bend) - abs(r_i * r_i * bend)
        yield (
            inside
            + r_i * abs(bend) * size_r
            + own * _size(z[i])
            + (mp.zero if is_renormalized else r_i * (size_v + sum(p) * abs(normalizer)))
        )


def _size(logit):
    return abs(logit) if logit > -mp.inf else mp.zero
