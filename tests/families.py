"""Rows to begin a search from, and the random changes by which it goes on.

A family takes a generator, the counts of the blocks and eps, and returns student and teacher
logits in units of the temperature.
"""

from dataclasses import replace

import numpy as np
from numpy import inf
from rows import Row

SIZES = [3, 10, 64, 65, 119, 128, 300, 1500]
MANY = 100_000
THRESHOLDS = [1 / 6, 1 / 14, 1 / 16, 1 / 32, 1 / 64, 1 / 128]  # of KL, where kernels branch
REACHES = [0.25, 0.5, 1, 2]  # of log(q/p), where a series ends
MASKS = [-1e4, -5e3, -100, -30, -10]


def power(rng, low, high):
    return 10 ** rng.uniform(low, high)


def normal(rng, counts):
    return rng.normal(size=counts.size) * power(rng, -1, 1)


def one_top(rng, counts, eps):
    """The teacher has one dominant class, the student none."""
    z, v = normal(rng, counts), normal(rng, counts)
    v[0] += power(rng, 1, 4)
    return z, v


def one_top_in_both(rng, counts, eps):
    z, v = normal(rng, counts), normal(rng, counts)
    z[0] += power(rng, 0.5, 4)
    v[0] += z[0] if rng.random() < 0.5 else power(rng, 0.5, 4)
    return z, v


def compensated(rng, counts, eps):
    """The dominant class has one probability in both networks, the others do not."""
    v = normal(rng, counts)
    z = v + rng.normal(size=v.size) * power(rng, -5, 0)
    weights = counts[1:] @ np.exp([z[1:], v[1:]]).T
    z[1:] -= np.log(weights[0] / weights[1])
    z[0] = v[0] = power(rng, 0.5, 4)
    return z, v


def compensated_offset(rng, counts, eps):
    """As before, and all logits of one network are shifted by some temperatures."""
    z, v = compensated(rng, counts, eps)
    return z + rng.normal() * power(rng, 0, 1.5), v


def ties(rng, counts, eps):
    z, v = normal(rng, counts), normal(rng, counts)
    tied = rng.integers(2, 4)
    for logits in (z, v):
        logits[:tied] = logits.max() + rng.choice([0, 5, 50, 1000])
    return z, v


def ties_beside_excluded(rng, counts, eps):
    z, v = ties(rng, counts, eps)
    for logits in [(z,), (v,), (z, v)][rng.integers(3)]:
        logits[-1] = -inf
    return z, v


def ordinary(rng, counts, eps):
    return normal(rng, counts), normal(rng, counts)


def masked(rng, counts, eps):
    """A class is masked by a finite number, in each network by its own or in one alone."""
    v = normal(rng, counts)
    z = v + normal(rng, counts) * rng.choice([0, power(rng, -3, 0)])
    one, other = (z, v) if rng.random() < 0.5 else (v, z)
    one[-1] = rng.choice(MASKS)
    if rng.random() < 0.6:
        other[-1] = rng.choice(MASKS)
    return z, v


def excluded(rng, counts, eps):
    z, v = normal(rng, counts), normal(rng, counts)
    v[-1] = -inf
    z[-1] = rng.choice([-inf, z[-1]])
    return z, v


def near(rng, counts, eps):
    v = normal(rng, counts)
    return v + rng.normal(size=v.size) * power(rng, -7, 0), v


def rescaled(rng, counts, eps):
    v = normal(rng, counts) * 10
    return v * (1 + power(rng, -7, 0)), v


def offset(rng, counts, eps):
    z, v = near(rng, counts, eps) if rng.random() < 0.5 else ordinary(rng, counts, eps)
    return z + rng.normal() * power(rng, 0, 4), v + rng.normal() * power(rng, 0, 4)


def saturated_teacher(rng, counts, eps):
    z, v = normal(rng, counts), normal(rng, counts)
    v[0] = v.max() + rng.uniform(5, 100)
    return z, v


def both_saturated(rng, counts, eps):
    z, v = near(rng, counts, eps)
    v[0] = v.max() + rng.uniform(5, 100)
    z[0] = v[0] + rng.normal() * power(rng, -6, 1)
    return z, v


def tail_near_eps(rng, counts, eps):
    """The teacher's probability of the other classes is about eps, of each or of all."""
    z, v = normal(rng, counts), rng.normal(size=counts.size) * 0.01
    v[0] = -np.log(eps * rng.uniform(0.2, 3)) + rng.choice([0, np.log(counts[1:].sum())])
    return z, v


def at_threshold(rng, counts, eps):
    """The divergence is near one of the thresholds at which kernels branch."""
    v, x = normal(rng, counts), rng.normal(size=counts.size)
    target = rng.choice(THRESHOLDS) * (1 + rng.normal() * power(rng, -6, -1))
    low, high = 0.0, 100.0
    for _ in range(50):
        s = (low + high) / 2
        low, high = (s, high) if divergence(v + s * x, v, counts) < target else (low, s)
    return v + low * x, v


def divergence(z, v, counts):
    p = np.exp(v - v.max())
    p /= counts @ p
    x = z - v - counts @ (p * (z - v))
    return np.log(counts @ (p * np.exp(np.minimum(x, 500))))


def at_reach(rng, counts, eps):
    v, x = normal(rng, counts), rng.normal(size=counts.size)
    span = rng.choice(REACHES) * (1 + rng.normal() * power(rng, -6, -1))
    return v + x / np.ptp(x) * span, v


def extreme(rng, counts, eps):
    """Logits of any size, some excluded; the temperature is extreme too."""
    z, v = (normal(rng, counts) * rng.choice([1, power(rng, -20, 10)]) for _ in range(2))
    v *= rng.choice([0, 1])
    v[-1] = rng.choice([v[-1], -inf])
    return z, v


FAMILIES = {
    family.__name__.replace("_", " "): family
    for family in (
        *(one_top, one_top_in_both, compensated, compensated_offset, ties, ordinary, masked),
        ties_beside_excluded,
        *(excluded, near, rescaled, offset, saturated_teacher, both_saturated, tail_near_eps),
        *(at_threshold, at_reach, extreme),
    )
}


def begin(family, dtype, rng):
    """Return a row of a family, of one of a few sizes and at any temperature."""
    counts = some_counts(rng)
    z, v = FAMILIES[family](rng, counts, float(np.finfo(dtype).eps))
    tau, unit = some_temperature(rng), 1.0
    if family == "extreme":
        tau = power(rng, -40, 300) if rng.random() < 0.7 else inf
    elif rng.random() < 0.7:
        unit = min(tau, 1e4)
    order = int(rng.integers(100)) if rng.random() < 0.3 else None
    row = Row(dtype, z * unit, v * unit, counts, tau, order, rng.random() < 0.85)
    return limited(row, limit(family))


def some_counts(rng):
    blocks = int(rng.integers(2, 6))
    counts = np.ones(blocks, int)
    if rng.random() < 0.5:
        weights = rng.dirichlet(np.full(blocks - 1, 0.5))
        total = MANY if rng.random() < 0.05 else rng.choice(SIZES)
        counts[1:] += rng.multinomial(total, weights)
    return counts


def some_temperature(rng):
    usual = rng.choice([0.5, 2, 4, 20, 1e3, inf])
    return float(rng.choice([1, usual, power(rng, -3, 12)], p=[0.5, 0.2, 0.3]))


def limit(family):
    """Return the largest logit that a family may hold."""
    return 1e10 if family == "extreme" else 1e4


def limited(row, largest):
    z, v = (np.where(x == -inf, x, np.clip(x, -largest, largest)) for x in (row.z, row.v))
    return replace(row, z=z, v=v)


# Each step changes the logits x of one network, beside the other's, at a class i.


def nudge(x, other, i, rng):
    x[i] += rng.choice([-3, -2, -1, 1, 2, 3]) * np.spacing(abs(x[i]))


def step(x, other, i, rng):
    size = rng.choice([abs(x[i]), np.ptp(x[np.isfinite(x)]), abs(x[i] - other[i]), 1])
    x[i] += rng.normal() * size * power(rng, -7, 0.3)


def copy(x, other, i, rng):
    x[i] = rng.choice(x)


def agree(x, other, i, rng):
    x[i] = other[i]


def swap(x, other, i, rng):
    x[i], other[i] = other[i], x[i]


def scale(x, other, i, rng):
    factor = np.exp(rng.normal() * power(rng, -7, 0))
    x *= factor
    if rng.random() < 0.5:
        other *= factor


def shift(x, other, i, rng):
    amount = rng.normal() * power(rng, -5, 2)
    x += amount
    if rng.random() < 0.5:
        other += amount


STEPS = [nudge, nudge, step, step, step, copy, agree, swap, scale, shift]


def recount(row, rng):
    counts, i = row.counts.copy(), rng.integers(row.counts.size)
    grown = (
        counts[i] + rng.integers(-2, 3) if rng.random() < 0.5 else counts[i] * power(rng, -1, 1)
    )
    counts[i] = np.clip(grown, 1, MANY)
    return replace(row, counts=counts)


def reheat(row, rng):
    near_by = min(row.tau, 1e300) * (1 + rng.uniform(-1, 1) * power(rng, -6, -0.1))
    return replace(row, tau=near_by if rng.random() < 0.8 else some_temperature(rng))


def reorder(row, rng):
    return replace(row, order=rng.choice([None, int(rng.integers(100))]))


def split(row, rng):
    """Append a copy of a block, for other steps to change."""
    i = [*range(row.counts.size), rng.integers(row.counts.size)]
    return replace(row, z=row.z[i], v=row.v[i], counts=row.counts[i]) if len(i) < 9 else row


def drop(row, rng):
    i = np.delete(np.arange(row.counts.size), rng.integers(row.counts.size))
    return replace(row, z=row.z[i], v=row.v[i], counts=row.counts[i]) if len(i) > 1 else row


RESHAPINGS = [recount, reheat, reorder, split, drop]


def mutated(row, rng, largest):
    """Return a row a few steps away."""
    new = replace(row)
    if rng.random() < 0.25:
        new = rng.choice(RESHAPINGS)(new, rng)
    with np.errstate(all="ignore"):
        for _ in range(rng.geometric(0.5)):
            x, other = (new.z, new.v) if rng.random() < 0.5 else (new.v, new.z)
            i = rng.integers(x.size)
            if np.isfinite(x[i]):
                STEPS[rng.integers(len(STEPS))](x, other, i, rng)
        new = limited(new, largest)
    usable = all((x > -inf).any() and not np.isnan(x).any() for x in (new.z, new.v))
    return new if usable else row
