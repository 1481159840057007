"""A row of logits in blocks of equal classes, its loss, gradient and condition numbers.

The reference is the definition, summed with mpmath to as many digits as the logits require.
Classes that share both logits are one block with a count, so that its cost does not grow
with K. The condition numbers are those of `test_kernel.py`.
"""

from dataclasses import dataclass
from fractions import Fraction
from functools import lru_cache
from itertools import pairwise
from operator import mul
from typing import NamedTuple

import numpy as np
from mpmath import mp
from numpy import inf


@dataclass(eq=False, repr=False)
class Row:
    """Student logits z and teacher logits v, one of each per block, and a temperature."""

    dtype: str
    z: np.ndarray
    v: np.ndarray
    counts: np.ndarray
    tau: float = 1.0
    order: int | None = None  # the seed that shuffles the classes
    scaled: bool = True
    divergence: object = "forward_kl"

    def __post_init__(self):
        self.z, self.v = np.array(self.z, self.dtype), np.array(self.v, self.dtype)
        self.counts = np.array(self.counts)
        self.scaled = self.scaled or self.tau == inf  # the plain loss is 0 there

    def __repr__(self):
        z, v, counts = (f"[{', '.join(map(str, x))}]" for x in (self.z, self.v, self.counts))
        return f"Row({self.dtype!r}, {z}, {v}, {counts}{self._repr_of_options()})"

    def _repr_of_options(self):
        usual = {"tau": 1.0, "order": None, "scaled": True, "divergence": "forward_kl"}
        options = {name: getattr(self, name) for name in usual}
        return "".join(f", {k}={options[k]}" for k in options if options[k] != usual[k])

    @property
    def num_classes(self):
        return int(self.counts.sum())

    def logits(self):
        """Return both networks' logits, class by class."""
        order = shuffled(self.num_classes, self.order)
        return np.repeat(self.z, self.counts)[order], np.repeat(self.v, self.counts)[order]

    def by_block(self, grad):
        """Return the smallest and the largest gradient of each block."""
        in_blocks = np.empty_like(grad)
        in_blocks[shuffled(self.num_classes, self.order)] = grad
        starts = np.cumsum(self.counts) - self.counts
        return [by.reduceat(in_blocks, starts).tolist() for by in (np.minimum, np.maximum)]


@lru_cache(maxsize=64)
def shuffled(num_classes, seed):
    if seed is None:
        return np.arange(num_classes)
    return np.random.default_rng(seed).permutation(num_classes)


class Reference(NamedTuple):
    loss: mp.mpf
    grad: list  # one per block
    loss_condition: mp.mpf
    grad_condition: mp.mpf


def digits(row):
    """Return enough digits for 30 right ones in every number above the smallest normal one."""
    z, v = row.z.astype(float), row.v.astype(float)
    margin = max(np.ptp(x[x > -inf]) for x in (z, v)) / row.tau
    pairs = zip(z, v, strict=True)
    x = sorted(Fraction(a) - Fraction(b) for a, b in pairs if min(a, b) > -inf)
    apart = [float(b - a) / row.tau for a, b in pairwise(x) if b > a]
    least = min(apart, default=0.1)  # the divergence is of the order of its square
    power_of_tau = 0 if row.tau == inf else 2 * abs(np.log10(row.tau))
    smallest = power_of_tau - np.log10(np.finfo(row.dtype).tiny)
    least_power = -2 * np.log10(min(least, 1)) if least > 0 else inf
    return 40 + int(min(margin / np.log(10) + least_power, smallest))


def reference(row):
    """Return loss and gradient of a row, and the condition numbers of both."""
    with mp.workdps(digits(row)):
        z, v = ([mp.mpf(x) for x in logits.tolist()] for logits in (row.z, row.v))
        n = row.counts.tolist()
        if row.tau == inf:
            return at_infinity(z, v, n)
        return _at_temperature(z, v, n, mp.mpf(row.tau), row.scaled)


def _at_temperature(z, v, n, tau, scaled):
    (q, log_q), (p, log_p) = softmax_of(z, n, tau), softmax_of(v, n, tau)
    ratio = [b - a if b > -inf else mp.zero for a, b in zip(log_q, log_p, strict=True)]
    kl = weighted(n, map(mul, p, ratio))
    slope = [a - b for a, b in zip(q, p, strict=True)]
    loss_condition = mp.zero
    if 0 < kl < inf:
        by_teacher = [b * (r - kl) for b, r in zip(p, ratio, strict=True)]
        loss_condition = (size_of(slope, z, n) + size_of(by_teacher, v, n)) / tau / kl
    bends = largest(map(sum, zip(_bend(q, z, n), _bend(p, v, n), strict=True)))
    grad_condition = bends / tau / largest(slope) if any(slope) else mp.zero
    loss, unit = (tau**2 * kl, tau) if scaled else (kl, 1 / tau)
    return Reference(loss, [unit * s for s in slope], loss_condition, grad_condition)


def at_infinity(z, v, n):
    """Half the variance of z - v; what only one network excludes makes it infinite."""
    excluded = [max(pair) == -inf for pair in zip(z, v, strict=True)]
    total = weighted(n, (not out for out in excluded))
    x = [mp.zero if out else a - b for a, b, out in zip(z, v, excluded, strict=True)]
    if not all(map(mp.isfinite, x)):
        return Reference(mp.inf, [mp.inf] * len(z), mp.zero, mp.zero)
    uniform = [mp.zero if out else mp.one / total for out in excluded]
    mean = weighted(n, map(mul, uniform, x))
    slope = [u * (a - mean) for u, a in zip(uniform, x, strict=True)]
    if not any(slope):
        return Reference(mp.zero, slope, mp.zero, mp.zero)
    loss = weighted(n, (u * (a - mean) ** 2 for u, a in zip(uniform, x, strict=True))) / 2
    bends = largest(map(sum, zip(_bend(uniform, z, n), _bend(uniform, v, n), strict=True)))
    loss_condition = (size_of(slope, z, n) + size_of(slope, v, n)) / loss
    return Reference(loss, slope, loss_condition, bends / largest(slope))


def softmax_of(logits, n, tau):
    top = max(logits)
    scaled = [(x - top) / tau for x in logits]
    p = [mp.exp(x) for x in scaled]
    total = weighted(n, p)
    log_total = mp.log(total)
    return [x / total for x in p], [x - log_total for x in scaled]


def weighted(n, numbers):
    return sum(map(mul, n, numbers))


def largest(numbers):
    return max(map(abs, numbers))


def size_of(derivative, logits, n):
    """Return the sum of |derivative x logit| over the classes that are not excluded."""
    terms = zip(n, derivative, logits, strict=True)
    return sum(k * abs(d * x) for k, d, x in terms if x > -inf)


def _bend(p, logits, n):
    """Return the row sums of |p_i (delta_ij - p_j) z_j|."""
    mean = size_of(p, logits, n)
    pairs = zip(p, logits, strict=True)
    return [b * ((1 - 2 * b) * abs(x) + mean) if x > -inf else mp.zero for b, x in pairs]
