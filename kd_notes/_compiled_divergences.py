"""The divergences other than forward KL in compiled loops, with the numbers of `_compiled.py`.

These are the formulas of `_comparison.py` and `_divergence_terms.py` for ordinary rows: no class
is excluded by one network alone, and no probability is near the smallest normal number, nor is
the inverse of a ratio of two. The others are left to those files.

The classes of a row are cut into lines of LANES, one after the other, so that a loop over a line
is the same whether it holds classes of one row or, where classes are few, one class of each of
several rows. A tile is what is computed at once, a row or a group of rows: numbers for each class
are in `classes`, `(lines, CLASS)`, and numbers for each lane in `rows`.
"""

from __future__ import annotations

import math
from typing import Any, NamedTuple, cast

import numpy as np
from numba.extending import overload

from kd_notes._compiled import (
    CENTER,
    CLASS,
    LANES,
    LEVEL,
    LOG_R,
    OFFSET,
    ROWS,
    SLOPE,
    TOTAL,
    V_TOP,
    WITHIN,
    Z_MAX,
    Levels,
    M,
    P,
    S,
    T,
    Tops,
    V,
    Z,
    add_to,
    at_top,
    centered,
    clear_from,
    compiled,
    difference,
    exp,
    exponentials,
    for_python,
    group_at_top,
    group_centered,
    group_exponentials,
    in_any_order,
    inlined,
    is_small,
    levels,
    levels_of,
    load,
    load_group,
    log1p,
    numbers,
    polynomial,
    read_only,
    sum_of,
    workspace,
)
from kd_notes._f_divergences import Formula

# Of `_compiled.py`, so that this file changes with it: Numba looks for changes in the file of a
# stored function, and not in those that it calls. `sha256sum` prints it; a test compares.
OF_SHARED = "348b1cff071578b6"

# More numbers for each lane. Of the student's top class: the teacher's logit, what a difference
# is counted from there, and x; then the student's normalizer, and log(1 + M)/β.
V_THERE, THERE_OFFSET, THERE_WITHIN, X_TOP, TOTAL_Z, SHIFT, OTHERS, Y_THERE = (
    ROWS + LANES * i for i in range(1, 9)
)
SIZE = ROWS + LANES * 9
H, Q = Z, SLOPE  # in place of logits and slopes


class Class(NamedTuple):
    """What is known of a class, in the names of `Comparison`."""

    p: Any
    q: Any
    y: Any
    t: Any
    y_top: Any
    t_top: Any
    x_top: Any
    y_there: Any  # of the student's top class


# One class


@inlined
def expm1_ratio(y: Any, c: Any) -> Any:
    """Return (eʸ − 1)/y, and h with which that times h is φ(y)/y², where |y| ≤ REACH."""
    h = c.half - y * polynomial(y * y, c.coth)
    return c.one / (c.one - y * h), h


@inlined
def phi_ratio(y: Any, c: Any) -> Any:
    ratio, h = expm1_ratio(y, c)
    return ratio * h


@inlined
def ratio_of(o: Any, w: Any, c: Any) -> Any:
    """Return o/w; of a class that both networks exclude, 1."""
    return o / w if w > c.zero else c.one


@inlined
def from_top(x: Any, of: Any, c: Any) -> Any:
    """Return x − x_top, and unit times that."""
    slope = of.x_top * expm1_ratio(of.y_top, c)[0]
    is_near = abs(of.y_top) <= c.reach
    far = x - of.x_top
    return slope * of.y_top if is_near else far, slope * of.t_top if is_near else c.unit * far


@inlined
def skewed(w: Any, o: Any, y: Any, t: Any, a: Any, other: Any, c: Any) -> Any:
    """Return the summand of KL(w, m)/a² for m = (1 − a) w + a o, where y = log(o/w)."""
    is_near = abs(y) <= c.reach
    ratio, slope = ratio_of(o, w, c), expm1_ratio(y, c)[0]
    expm1 = y * slope if is_near else ratio - c.one
    t_expm1 = t * slope if is_near else c.unit * expm1
    u = a * expm1
    log, psi, _ = log1p(u, other + a * ratio, c)
    far = c.unit * c.unit * (((o - w) - w * log / a) / a)
    return w * t_expm1 * t_expm1 * psi if is_small(u, c) else far


# Each divergence: its summand, and h less its value at the student's top class


@inlined
def reverse_kl(_: Any, of: Any, c: Any) -> Any:
    near = of.q * of.t * of.t * phi_ratio(-of.y, c)
    far = (c.unit * (of.p - of.q) + of.q * of.t) * c.unit
    return near if abs(of.y) <= c.reach else far, -of.t_top


@inlined
def jeffreys(_: Any, of: Any, c: Any) -> Any:
    near = of.p * of.t * of.t * expm1_ratio(of.y, c)[0]
    far = (of.q - of.p) * of.t * c.unit
    h = from_top(ratio_of(of.p, of.q, c), of, c)[1] + of.t_top
    return (near if abs(of.y) <= c.reach else far) * c.half, -c.half * h


@inlined
def skew_kl(mixture: Any, of: Any, c: Any) -> Any:
    a, x = mixture.other, ratio_of(of.p, of.q, c)
    m, m_top = mixture.weight * x + a, mixture.weight * of.x_top + a
    h = from_top(x, of, c)[1] / m / -m_top
    return skewed(of.p, of.q, of.y, of.t, a, mixture.weight, c), h


@inlined
def skew_reverse_kl(mixture: Any, of: Any, c: Any) -> Any:
    """Compute h as `_divergence_terms.py`, where m_top/m = 1 + v."""
    a, x = mixture.other, ratio_of(of.p, of.q, c)
    m, m_top = mixture.weight + a * x, mixture.weight + a * of.x_top
    plain, scaled = from_top(x, of, c)
    g, t_g = plain / m, scaled / m
    v = -a * g
    log, psi, _ = log1p(v, m_top / m, c)
    near = -t_g * (g * psi + of.x_top / m_top)
    far = c.unit * ((log - mixture.weight / m_top * v) / a / a)
    h = near if is_small(v, c) else far
    return skewed(of.q, of.p, -of.y, -of.t, a, mixture.weight, c), h


@inlined
def jensen_shannon(mixture: Any, of: Any, c: Any) -> Any:
    beta, other, x = mixture.weight, mixture.other, ratio_of(of.p, of.q, c)
    m, m_top = other + beta * x, other + beta * of.x_top
    plain, scaled = from_top(x, of, c)
    u = beta * (plain / m_top)
    log, _, slope = log1p(u, m / m_top, c)
    h = -(scaled / m_top * slope if is_small(u, c) else c.unit * (log / beta))
    of_p = other * skewed(of.p, of.q, of.y, of.t, other, beta, c)
    return of_p + beta * skewed(of.q, of.p, -of.y, -of.t, beta, other, c), h


@inlined
def powers(w: Any, o: Any, y: Any, t: Any, a: Any, geometric: Any, c: Any) -> Any:
    """Return w (φ(a y) − a φ(y)) / (a (a − 1)), given w e^(a y)."""
    power = a * y
    slope, h = expm1_ratio(power, c)
    near = w * t * t * (phi_ratio(y, c) - a * (slope * h))
    expm1 = w * y * slope if abs(power) <= c.reach else (geometric - w) / a
    far = c.unit * c.unit * ((o - w) - expm1)
    return (near if abs(y) <= c.reach else far) / (c.one - a)


@inlined
def alpha(exponent: Any, of: Any, c: Any) -> Any:
    alpha, other = exponent.weight, exponent.other
    power, other_power = exp(-alpha * of.y, c), exp(other * of.y, c)
    geometric = of.q * power if of.p < of.q else of.p * other_power
    if alpha > c.half:
        summand = powers(of.p, of.q, of.y, of.t, other, geometric, c)
    else:
        summand = powers(of.q, of.p, -of.y, -of.t, alpha, geometric, c)
    power_top, y_top = exp(-alpha * of.y_there, c), alpha * of.y_top
    near = power_top * of.t_top * expm1_ratio(y_top, c)[0]
    far = c.unit * ((ratio_of(geometric, of.q, c) - power_top) / alpha)
    return summand, -(near if abs(y_top) <= c.reach else far)


@inlined
def total_variation(_: Any, of: Any, c: Any) -> Any:
    near = of.p * of.t * expm1_ratio(of.y, c)[0]
    difference = near if abs(of.y) <= c.reach else c.unit * (of.q - of.p)
    return abs(difference) * c.half, c.half * (sign(of.t, c) - sign(of.y_there, c))


@inlined
def sign(x: Any, c: Any) -> Any:
    return (c.one if x > c.zero else c.zero) - (c.one if x < c.zero else c.zero)


class Divergence(NamedTuple):
    """Says by its type which divergence is meant."""

    weight: Any  # its parameter, and 1 less that
    other: Any


class ReverseKL(Divergence):
    pass


class Jeffreys(Divergence):
    pass


class SkewKL(Divergence):
    pass


class SkewReverseKL(Divergence):
    pass


class JensenShannon(Divergence):
    pass


class Alpha(Divergence):
    pass


class TotalVariation(Divergence):
    pass


def terms(divergence: Any, of: Any, c: Any) -> Any:
    """Return the summand of a class, and h less its value at the student's top class."""


def _terms(divergence: Any, of: Any, c: Any) -> Any:
    return cast("Any", TERMS[divergence.instance_class]).py_func


NAMED = {
    "reverse_kl": (ReverseKL, reverse_kl),
    "jeffreys": (Jeffreys, jeffreys),
    "skew_kl": (SkewKL, skew_kl),
    "skew_reverse_kl": (SkewReverseKL, skew_reverse_kl),
    "jensen_shannon": (JensenShannon, jensen_shannon),
    "alpha": (Alpha, alpha),
    "total_variation": (TotalVariation, total_variation),
}
TERMS = dict(NAMED.values())
# As of `inlined`: what `overload` compiles does not have the options of a function given to it.
INLINE: Any = {"forceinline": True, "error_model": "numpy", "fastmath": {"contract"}}
overload(terms, jit_options=INLINE, strict=False)(_terms)


# A tile


@inlined
def is_served(z: Any, v: Any, z_max: Any, v_top: Any, c: Any) -> bool:
    """Whether a class is one of an ordinary row: not too far below both tops, or left out."""
    is_within = (z_max - z <= c.widest) & (v_top - v <= c.widest)
    return bool(is_within | ((z == -c.inf) & (v == -c.inf)))


@in_any_order
def is_ordinary(z: Any, v: Any, z_max: Any, v_top: Any, c: Any) -> bool:
    """Whether all classes are those of an ordinary row; nan and infinite logits are not."""
    others = 0
    for i in range(len(z)):
        zi, vi = z[i], v[i]
        for k in range(len(zi)):
            others += not is_served(zi[k], vi[k], z_max, v_top, c)
    return bool((others == 0) & (abs(z_max) < c.inf))


@compiled
def complete(rows: Any, j: int, c: Any) -> None:
    """Fill what follows from the other numbers of a lane."""
    total = rows[TOTAL + j]
    m = sum_of(rows, M + j) / total
    plain = m / c.unit
    slope = c.one if plain == c.zero else math.log1p(plain) / plain
    rows[SHIFT + j] = m / c.factor * slope
    rows[LOG_R + j] = math.log(total / rows[TOTAL_Z + j]) / c.beta
    top = levels(rows[V_THERE + j], rows[Z_MAX + j], c.zero, c)
    rows[THERE_OFFSET + j], rows[THERE_WITHIN + j] = top.offset, top.reach
    y = log_ratio(rows[Z_MAX + j], rows[V_THERE + j], rows, j, c) * c.beta
    rows[Y_THERE + j], rows[X_TOP + j] = y, exp(-y, c)


@inlined
def log_ratio(z: Any, v: Any, rows: Any, j: int, c: Any) -> Any:
    """Return τ log(q/p)."""
    near = difference(z, v, levels_of(rows, j), c) - rows[SHIFT + j]
    far = ((z - rows[Z_MAX + j]) - (v - rows[V_TOP + j])) + rows[LOG_R + j]
    return near if abs(near * c.beta) <= c.reach else far


@inlined
def class_of(line: Any, rows: Any, j: int, c: Any) -> Any:
    z, v = line[Z + j], line[V + j]
    is_excluded = z == -c.inf
    d = c.zero if is_excluded else log_ratio(z, v, rows, j, c)
    top = Levels(
        rows[V_THERE + j], rows[Z_MAX + j], rows[THERE_OFFSET + j], rows[THERE_WITHIN + j], c.zero
    )
    d_top = c.zero if is_excluded else difference(v, z, top, c)
    p, q = line[P + j] / rows[TOTAL + j], line[Q + j] / rows[TOTAL_Z + j]
    y, t, y_top, t_top = d * c.beta, d * c.factor, d_top * c.beta, d_top * c.factor
    return Class(p, q, y, t, y_top, t_top, rows[X_TOP + j], rows[Y_THERE + j])


@for_python
def add_up(divergence: Any, tiles: Any, rows: Any, c: Any) -> None:
    """Add up the summands and q h, and put h and q in place of logits and exponentials."""
    for i in range(len(tiles)):
        row = rows[i]
        clear_from(row, S, c)
        for k in range(tiles.shape[1]):
            line = tiles[i, k]
            for j in range(LANES):
                of = class_of(line, row, j, c)
                summand, line[H + j] = terms(divergence, of, c)
                line[Q + j] = of.q
                add_to(row, S + j, summand, c)
                add_to(row, T + j, of.q * line[H + j], c)


@in_any_order
def sum_of_lanes(rows: Any, at: int, c: Any) -> Any:
    total = rest = c.zero
    for j in range(LANES):
        total += rows[at + j]
        rest += rows[at + LANES + j]
    return total + rest


@compiled
def subtract_mean(classes: Any, rows: Any, c: Any) -> None:
    """Put q (h − Σ q h) in place of h, and its sum in M; the sum of q h is in T."""
    for j in range(LANES):
        rows[M + j] = rows[M + LANES + j] = c.zero
    for k in range(len(classes)):
        line = classes[k]
        for j in range(LANES):
            line[H + j] = line[Q + j] * (line[H + j] - rows[T + j])
            add_to(rows, M + j, line[H + j], c)


@compiled
def finish(classes: Any, rows: Any, c: Any) -> None:
    """Subtract what is left of the mean, which is in M."""
    for k in range(len(classes)):
        line = classes[k]
        for j in range(LANES):
            line[H + j] = (line[H + j] - line[Q + j] * rows[M + j]) * c.grad_factor


@compiled
def as_loss(total: Any, c: Any) -> Any:
    return c.zero if total <= c.zero else total * c.loss_factor


# A row in each tile


@compiled
def load_row(z: Any, v: Any, p: Any, q: Any, z_max: Any, v_top: Any, rows: Any, c: Any) -> None:
    """Fill the numbers of the first lane, which are those of all."""
    tops = Tops(at_top(z, v, v_top, c), v_top, z_max)
    rows[Z_MAX], rows[V_TOP], rows[V_THERE] = z_max, v_top, at_top(v, z, z_max, c)
    rows[TOTAL] = exponentials(v, v_top, p, c)
    rows[M], _, _, level = centered(z, v, p, tops, rows[TOTAL], q, c)
    rows[M + LANES] = c.zero
    rows[LEVEL], rows[OFFSET], rows[WITHIN] = level.z, level.offset, level.reach
    rows[CENTER] = level.center
    rows[TOTAL_Z] = exponentials(z, z_max, q, c)
    complete(rows, 0, c)


@compiled
def fill(rows: Any, start: int, stop: int) -> None:
    """Let all lanes have the numbers of the first one."""
    for at in range(start, stop, LANES):
        for j in range(1, LANES):
            rows[at + j] = rows[at]


@for_python
def load_rows(student: Any, teacher: Any, tiles: Any, rows: Any, deferred: Any, space: Any,
              c: Any) -> None:  # fmt: skip
    """Fill a tile for each row; say which rows are not ordinary."""
    z, v, p, q = space[0], space[1], space[2], space[3]
    flat = space.reshape(len(space), -1)
    for i in range(len(student)):
        z_max, z_has_nan = load(student[i], flat[0], c)
        v_top, v_has_nan = load(teacher[i], flat[1], c)
        deferred[i] = z_has_nan or v_has_nan or not is_ordinary(z, v, z_max, v_top, c)
        if deferred[i]:
            continue
        load_row(z, v, p, q, z_max, v_top, rows[i], c)
        fill(rows[i], 0, CENTER + LANES)
        fill(rows[i], V_THERE, SIZE)
        for k in range(tiles.shape[1]):
            for at, x in ((Z, z), (V, v), (P, p), (Q, q)):
                load_line(x, k, tiles[i, k], at)


@compiled
def load_line(x: Any, k: int, line: Any, at: int) -> None:
    flat = x.reshape(-1)
    for j in range(LANES):
        line[at + j] = flat[k * LANES + j]


@for_python
def store_rows(tiles: Any, rows: Any, deferred: Any, loss: Any, grad: Any, c: Any) -> None:
    for i in range(len(loss)):
        if deferred[i]:
            continue
        loss[i] = as_loss(sum_of_lanes(rows[i], S, c), c)
        if len(grad):
            store_slopes(tiles[i], rows[i], grad[i], c)


@compiled
def store_slopes(classes: Any, rows: Any, grad: Any, c: Any) -> None:
    rows[T] = sum_of_lanes(rows, T, c)
    fill(rows, T, T + LANES)
    subtract_mean(classes, rows, c)
    rows[M] = sum_of_lanes(rows, M, c)
    fill(rows, M, M + LANES)
    finish(classes, rows, c)
    for k in range(len(classes)):
        line = classes[k]
        for j in range(min(LANES, len(grad) - k * LANES)):
            grad[k * LANES + j] = line[H + j]


# A group of rows in each tile, one in each lane


@compiled
def group_others(classes: Any, rows: Any, c: Any) -> None:
    """Count in OTHERS what no class of an ordinary row is."""
    for j in range(LANES):
        rows[OTHERS + j] = c.zero if abs(rows[Z_MAX + j]) < c.inf else c.one
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            is_usual = is_served(x[Z + j], x[V + j], rows[Z_MAX + j], rows[V_TOP + j], c)
            rows[OTHERS + j] += c.zero if is_usual else c.one


@compiled
def load_numbers(classes: Any, rows: Any, c: Any) -> None:
    group_centered(classes, rows, c)
    group_others(classes, rows, c)
    group_exponentials(classes, rows, Z, Z_MAX, Q, c)
    for j in range(LANES):
        rows[TOTAL_Z + j] = sum_of(rows, S + j)
    group_at_top(classes, rows, Z, Z_MAX, V, V_TOP, V_THERE, c)
    for j in range(LANES):
        complete(rows, j, c)


@for_python
def load_groups(student: Any, teacher: Any, tiles: Any, rows: Any, deferred: Any, c: Any) -> None:
    """Fill a tile for each group of rows; the last may repeat one row."""
    index = np.empty(LANES, np.uintp)
    for i in range(len(tiles)):
        for j in range(LANES):
            index[j] = min(i * LANES + j, len(student) - 1)
        load_group(student, index, tiles[i], Z)
        load_group(teacher, index, tiles[i], V)
        load_numbers(tiles[i], rows[i], c)
        for j in range(LANES):
            deferred[index[j]] = rows[i, OTHERS + j] > c.zero


@for_python
def store_groups(tiles: Any, rows: Any, loss: Any, grad: Any, c: Any) -> None:
    for i in range(len(tiles)):
        for j in range(LANES):
            rows[i, T + j] = sum_of(rows[i], T + j)
        subtract_mean(tiles[i], rows[i], c)
        for j in range(LANES):
            rows[i, M + j] = sum_of(rows[i], M + j)
        finish(tiles[i], rows[i], c)
        for j in range(min(LANES, len(loss) - i * LANES)):
            loss[i * LANES + j] = as_loss(sum_of(rows[i], S + j), c)
            for k in range(grad.shape[1] if len(grad) else 0):
                grad[i * LANES + j, k] = tiles[i, k, H + j]


SPAN = 0.8  # of the logarithm of the smallest normal number
MIXTURES = ("skew_kl", "skew_reverse_kl", "jensen_shannon")
LEAST_WEIGHT = 1e-6  # the rounding of q h grows with its logarithm
STEP = 2**18  # bytes of tiles that are filled at once


def can_serve(formula: Formula) -> bool:
    """Whether the loops compute a divergence: no parameter may be tiny, or far from [0, 1]."""
    name, parameter, _ = formula
    if name == "alpha":
        return abs(parameter) >= LEAST_WEIGHT and -1 <= parameter <= 2
    return name not in MIXTURES or LEAST_WEIGHT <= parameter <= 1 - LEAST_WEIGHT


def widest_span(formula: Formula, classes: int, dtype: np.dtype[Any], unit: float) -> float:
    """Return within how many temperatures of the top all logits of an ordinary row are.

    A ratio of probabilities is at most K times the exponential of it. No power of the ratio,
    over a weight and times unit², may be near the largest number; below 0, no row is ordinary.
    """
    name, parameter, _ = formula
    room = -SPAN * math.log(np.finfo(dtype).tiny) - 2 * math.log(max(1.0, unit))
    if name == "alpha":
        room /= max(1.0, 2 * abs(parameter), 2 * abs(1 - parameter))
    elif name in MIXTURES:
        room += math.log(min(parameter, 1 - parameter))
    return room - math.log(classes)


class Loops:
    """Compute a divergence for at most so many rows at once, of so many classes."""

    def __init__(
        self,
        formula: Formula,
        rows: int,
        classes: int,
        is_grouped: bool,
        dtype: np.dtype[Any],
        *,
        beta: float,
        grad_factor: float,
        **of_call: float,
    ) -> None:
        name, weight, factor = formula
        self.divergence = NAMED[name][0](dtype.type(weight), dtype.type(1 - weight))
        of_call |= {"beta": beta, "grad_factor": grad_factor * factor, "loss_factor": factor}
        widest = widest_span(formula, classes, dtype, of_call["unit"]) / beta
        self.c = numbers(dtype, **of_call, widest=min(widest, np.finfo(dtype).max))
        self.is_grouped = is_grouped
        lines, most = classes, -(-rows // LANES)
        if not is_grouped:
            self.space = workspace(classes, dtype, LANES * dtype.itemsize)
            lines, most = self.space[0].size // LANES, rows
        tiles = min(most, -(-STEP // (lines * CLASS * dtype.itemsize)))
        self.tiles = np.zeros((tiles, lines, CLASS), dtype)
        self.rows = np.zeros((len(self.tiles), SIZE), dtype)

    def compute(self, student: Any, teacher: Any, loss: Any, grad: Any) -> Any:
        """Fill the loss, and the gradient if it has rows; return which rows are left out."""
        student, teacher = map(read_only, (student, teacher))
        deferred = np.zeros(len(student), np.bool_)
        step = len(self.tiles) * (LANES if self.is_grouped else 1)
        for start in range(0, len(student), step):
            part = slice(start, start + step)
            self._compute(*(x[part] for x in (student, teacher, loss, grad, deferred)))
        return np.flatnonzero(deferred)

    def _compute(self, student: Any, teacher: Any, loss: Any, grad: Any, deferred: Any) -> None:
        tiles = self.tiles[: -(-len(loss) // LANES) if self.is_grouped else len(loss)]
        rows = self.rows[: len(tiles)]
        if self.is_grouped:
            load_groups(student, teacher, tiles, rows, deferred, self.c)
            add_up(self.divergence, tiles, rows, self.c)
            store_groups(tiles, rows, loss, grad, self.c)
        else:
            load_rows(student, teacher, tiles, rows, deferred, self.space, self.c)
            add_up(self.divergence, tiles, rows, self.c)
            store_rows(tiles, rows, deferred, loss, grad, self.c)
