"""Forward KL and its gradient in compiled loops: for each row, a few passes in the cache.

These are the formulas of `_formulas.py` and the quicker one of `_kernel.py`, written for one
row of many classes. Numba compiles them at the first call, and stores the result on disk.

What LLVM needs to compute several classes at once shapes the code: the exponential is a
polynomial in the loop and not a call, sums may be reordered, a maximum is one of integers, a
condition counts instead of comparing with what came before, and rows are padded with excluded
classes, so that no loop ends in single steps.
"""

from __future__ import annotations

import math
from functools import cache
from typing import Any, NamedTuple

import numpy as np
from numba import njit, types
from numba.extending import overload

from kd_notes._formulas import CLIP, COTH, FAR, REACH

CHUNK = 512  # the numbers that are added up as they come; sums of chunks are added exactly
PAD = 256  # bytes: rows are as long as some whole number of these

# eʳ = 1 + r + r² g(r); these are the coefficients, from the constant on, of the polynomial that
# equals g at the Chebyshev points of ±0.505 log 2, slightly more than what r can be.
EXP = {
    "float32": [0.5, 0.1666657328605652, 0.04166654869914055, 0.008363774046301842,
                0.0013926926767453551],
    "float64": [0.5000000000000001, 0.16666666666666669, 0.04166666666662064,
                0.008333333333329793, 0.0013888888918939168, 0.00019841269864380513,
                2.4801518641395993e-05, 2.75572664186123e-06, 2.7621338669142925e-07,
                2.510134692835034e-08],
}  # fmt: skip
LOG_2 = {"float32": float.fromhex("0x1.62e4p-1"), "float64": float.fromhex("0x1.62e42feep-1")}
LOG_2_REST = {"float32": 1.428606765330187e-06, "float64": 1.9082149292705877e-10}


class Numbers(NamedTuple):
    """Constants in the dtype of the rows: a literal would be float64."""

    zero: Any
    half: Any
    one: Any
    two: Any
    third: Any
    quarter: Any
    inf: Any
    small: Any
    nearly: Any
    reach: Any
    far: Any
    clip: Any
    log2_e: Any
    log_2: Any
    log_2_rest: Any
    shift: Any  # added to n, it leaves n and the bias of the exponent in the lowest bits
    least: Any  # the logarithm of the smallest normal number, nearly
    exp: tuple[Any, ...]
    coth: tuple[Any, ...]


@cache
def numbers(dtype: np.dtype[Any]) -> Numbers:
    info, name = np.finfo(dtype), dtype.name
    shift = 1.5 * 2**info.nmant + info.maxexp - 1
    least = math.log(info.tiny) + 0.03
    single = [0, 0.5, 1, 2, 1 / 3, 1 / 4, math.inf, 1e-4, 0.999, REACH, FAR, CLIP]
    single += [1 / math.log(2), LOG_2[name], LOG_2_REST[name], shift, least]
    tables = (tuple(map(dtype.type, reversed(table[name]))) for table in (EXP, COTH))
    return Numbers(*map(dtype.type, single), *tables)


OPTIONS = {"nogil": True, "cache": True, "error_model": "numpy"}
compiled = njit(**OPTIONS, fastmath={"contract"})
in_any_order = njit(**OPTIONS, fastmath={"contract", "nsz", "reassoc"})  # of the sums: no other


@compiled
def add(total: Any, rest: Any, x: Any) -> Any:
    """Return total + x, rounded, and `rest` plus what that loses; nothing if it is infinite."""
    new = total + x
    change = new - total
    lost = (total - (new - change)) + (x - change)
    return new, (rest + lost if lost == lost else rest)


def power_of_two(shifted: Any) -> Any:
    """Return 2ⁿ, where `shifted` is n plus `Numbers.shift`."""


@overload(power_of_two)
def _power_of_two(shifted):  # type: ignore[no-untyped-def]
    if shifted == types.float32:
        return lambda shifted: np.int32(np.float32(shifted).view(np.int32) << 23).view(np.float32)
    return lambda shifted: np.int64(np.float64(shifted).view(np.int64) << 52).view(np.float64)


@compiled
def polynomial(x: Any, coefficients: Any) -> Any:
    total = coefficients[0]
    for i in range(1, len(coefficients)):
        total = total * x + coefficients[i]
    return total


@compiled
def exp(x: Any, c: Any) -> Any:
    """Return eˣ, or 0 below the smallest normal number."""
    shifted = x * c.log2_e + c.shift
    n = shifted - c.shift
    r = (x - n * c.log_2) - n * c.log_2_rest
    power = (c.one + (r + r * r * polynomial(r, c.exp))) * power_of_two(shifted)
    return c.zero if x < c.least else power


@compiled
def product(p: Any, x: Any, c: Any) -> Any:
    """Return p x, where 0·∞ = 0, but −∞ is unchanged even if p underflows."""
    finite = p * x if p > c.zero else c.zero
    return x if x == -c.inf else finite


@in_any_order
def has_nan(z: Any, v: Any) -> bool:
    found = 0
    for i in range(len(z)):
        zi, vi = z[i], v[i]
        for k in range(len(zi)):
            found += (zi[k] != zi[k]) | (vi[k] != vi[k])
    return found > 0


@in_any_order
def largest(bits: Any) -> Any:
    """Return the bits of the largest number: as integers, negative ones have the other order."""
    low = high = bits[0, 0]
    for i in range(len(bits)):
        row = bits[i]
        for k in range(len(row)):
            low, high = min(low, row[k]), max(high, row[k])
    return high if high >= 0 else low


@compiled
def scaled_exp(x: Any, top: Any, beta: Any, c: Any) -> Any:
    return exp((x - top) * beta, c)


@in_any_order
def exponentials(x: Any, top: Any, beta: Any, out: Any, c: Any) -> Any:
    """Fill `out` with e^(β(x − top)), and return its sum, to which the largest are added last."""
    total = rest = ties = c.zero
    for i in range(len(x)):
        xi, to = x[i], out[i]
        part = c.zero
        for k in range(len(xi)):
            to[k] = scaled_exp(xi[k], top, beta, c)
            is_top = xi[k] == top
            part += c.zero if is_top else to[k]
            ties += c.one if is_top else c.zero
        total, rest = add(total, rest, part)
    return ties + (total + rest)


@compiled
def quick_terms(z: Any, v: Any, q: Any, p: Any, tops: Any, beta: Any, log_r: Any, r: Any,
                c: Any) -> Any:  # fmt: skip
    slope = r * q - p
    x = (z - tops[2]) * beta - (v - tops[1]) * beta + log_r
    return slope, slope - product(p, x, c)


@in_any_order
def quick(z: Any, v: Any, q: Any, p: Any, tops: Any, beta: Any, log_r: Any, least: Any,
          out: Any, c: Any) -> Any:  # fmt: skip
    """Fill `out` with r q − p, as `_quick` of `_kernel.py`.

    Return the sum of  q − p log(q/p),  and how many of |r q − p| are at least so large.
    """
    total = rest = number = c.zero
    r = math.exp(log_r)
    for i in range(len(z)):
        zi, vi, qi, pi, to = z[i], v[i], q[i], p[i], out[i]
        part = c.zero
        for k in range(len(zi)):
            to[k], term = quick_terms(zi[k], vi[k], qi[k], pi[k], tops, beta, log_r, r, c)
            part += term
            number += c.one if abs(to[k]) >= least else c.zero
        total, rest = add(total, rest, part)
    return total + rest, number


@in_any_order
def at_top(z: Any, v: Any, v_top: Any, c: Any) -> Any:
    """Return z at the teacher's top class; the mean of several."""
    total = ties = c.zero
    for i in range(len(z)):
        zi, vi = z[i], v[i]
        for k in range(len(zi)):
            is_top = vi[k] == v_top
            total += zi[k] if is_top else c.zero
            ties += c.one if is_top else c.zero
    return total / ties


class Levels(NamedTuple):
    """What a difference of logits is counted from; see `difference` of `_formulas.py`."""

    z: Any
    v: Any
    offset: Any
    reach: Any
    center: Any


@compiled
def levels(z_level: Any, v_level: Any, center: Any, beta: Any, c: Any) -> Any:
    offset = z_level - v_level
    reach = abs(offset) if abs(offset) * beta > c.one else c.zero
    return Levels(z_level, v_level, offset, reach, center)


@compiled
def difference(z: Any, v: Any, level: Any, c: Any) -> Any:
    below = v - level.v
    x = (z - level.z) - below if abs(below) < level.reach else (z - v) - level.offset
    return (c.zero if (z == -c.inf) & (v == -c.inf) else x) - level.center


@compiled
def clipped_term(z: Any, v: Any, p: Any, level: Any, bound: Any, c: Any) -> Any:
    x = difference(z, v, level, c)
    x = x if x < bound else bound
    x = x if x > -bound else -bound
    return p * x if p > c.zero else c.zero


@in_any_order
def mean(z: Any, v: Any, p: Any, level: Any, bound: Any, c: Any) -> Any:
    """Return Σ p x, where x is a difference clipped to ± a bound."""
    total = rest = c.zero
    for i in range(len(z)):
        zi, vi, pi = z[i], v[i], p[i]
        part = c.zero
        for k in range(len(zi)):
            part += clipped_term(zi[k], vi[k], pi[k], level, bound, c)
        total, rest = add(total, rest, part)
    return total + rest


@compiled
def near(p: Any, x: Any, d: Any, c: Any) -> Any:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d), where |d| is at most REACH and x = unit·d."""
    h = c.half - d * polynomial(d * d, c.coth)
    p_expm1 = p * x / (c.one - d * h)
    return p_expm1, p_expm1 * (h * x)


@compiled
def wide(p: Any, q: Any, p_x: Any, unit: Any) -> Any:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d) from p, p eᵈ and unit·p d."""
    p_expm1 = unit * (q - p)
    return p_expm1, unit * (p_expm1 - p_x)


@compiled
def near_term(z: Any, v: Any, p: Any, level: Any, beta: Any, factor: Any, c: Any) -> Any:
    x = difference(z, v, level, c)
    return near(p, x * factor, x * beta, c), abs(x * beta)


@compiled
def term(z: Any, v: Any, p: Any, level: Any, beta: Any, factor: Any, unit: Any, c: Any) -> Any:
    x = difference(z, v, level, c)
    p_x = product(p, x * factor, c)
    near_expm1, near_phi = near(p, x * factor, x * beta, c)
    q = exp(((z - level.z) - level.center) * beta, c)
    wide_expm1, wide_phi = wide(p, q, p_x, unit)
    is_near = abs(x * beta) <= c.reach
    return (near_expm1 if is_near else wide_expm1), (near_phi if is_near else wide_phi), p_x


@in_any_order
def near_terms(z: Any, v: Any, p: Any, level: Any, beta: Any, factor: Any, out: Any,
               c: Any) -> Any:  # fmt: skip
    """Fill `out` with unit·p (eᵈ − 1); return the sums of both terms and two counts.

    These are of the classes with |d| > REACH, for which the terms are wrong, and > FAR.
    """
    m = m_rest = s = s_rest = wide = far = c.zero
    for i in range(len(z)):
        zi, vi, pi, to = z[i], v[i], p[i], out[i]
        m_part = s_part = c.zero
        for k in range(len(zi)):
            (to[k], p_phi), d = near_term(zi[k], vi[k], pi[k], level, beta, factor, c)
            m_part += to[k]
            s_part += p_phi
            wide += c.zero if d <= c.reach else c.one
            far += c.zero if d <= c.far else c.one
        m, m_rest = add(m, m_rest, m_part)
        s, s_rest = add(s, s_rest, s_part)
    return m + m_rest, s + s_rest, wide, far


@in_any_order
def all_terms(z: Any, v: Any, p: Any, level: Any, beta: Any, factor: Any, unit: Any, out: Any,
              c: Any) -> Any:  # fmt: skip
    """Fill `out` as `near_terms`, for every d; return the sums of both terms and of p x."""
    m = m_rest = s = s_rest = t = t_rest = c.zero
    for i in range(len(z)):
        zi, vi, pi, to = z[i], v[i], p[i], out[i]
        m_part = s_part = t_part = c.zero
        for k in range(len(zi)):
            to[k], p_phi, p_x = term(zi[k], vi[k], pi[k], level, beta, factor, unit, c)
            m_part += to[k]
            s_part += p_phi
            t_part += p_x
        m, m_rest = add(m, m_rest, m_part)
        s, s_rest = add(s, s_rest, s_part)
        t, t_rest = add(t, t_rest, t_part)
    return m + m_rest, s + s_rest, t + t_rest


@compiled
def level_for_outliers(z: Any, v: Any, p: Any, tops: Any, total: Any, beta: Any, spare: Any,
                       c: Any) -> Any:  # fmt: skip
    """Return the levels for a row with |d| > FAR somewhere; see `Pair` of `_formulas.py`."""
    z_top, v_top, z_max = tops
    bound = c.clip / beta
    level = levels(z_top, v_top, c.zero, beta, c)
    center = mean(z, v, p, level, bound, c) / total
    if abs(center) * beta > c.one or (z_max - z_top) * beta > c.two:
        log_sum = math.log(exponentials(z, z_max, beta, spare, c) / total)
        level = levels(z_max + log_sum / beta, v_top, c.zero, beta, c)
        center = mean(z, v, p, level, bound, c) / total
    return levels(level.z, v_top, center, beta, c)


@compiled
def accurate(z: Any, v: Any, p: Any, tops: Any, total: Any, beta: Any, factor: Any, unit: Any,
             out: Any, c: Any) -> Any:  # fmt: skip
    """Fill `out` with unit·p (eᵈ − 1), and return loss and M, as `loss_and_slope`."""
    z_top, v_top, _ = tops
    is_dominated = total < c.two
    x = mean(z, v, p, levels(z_top, v_top, c.zero, beta, c), c.inf, c) / total
    level = levels(z_top if is_dominated else z_top + x, v_top, c.zero, beta, c)
    level = levels(level.z, v_top, x if is_dominated else c.zero, beta, c)
    m, s, wide, far = near_terms(z, v, p, level, beta, factor, out, c)
    t = c.zero
    if wide > c.zero:
        if far > c.zero:
            level = level_for_outliers(z, v, p, tops, total, beta, out, c)
        m, s, t = all_terms(z, v, p, level, beta, factor, unit, out, c)
    return loss_of(m / total, s / total, t / total, unit, c), m / total


@compiled
def loss_of(m: Any, s: Any, t: Any, unit: Any, c: Any) -> Any:
    """Return unit²·KL from M, S and Σ p d, as `_loss` of `_formulas.py`."""
    plain_m = m / unit
    ratio = c.half - plain_m * (c.third - plain_m * c.quarter)
    if not abs(plain_m) < c.small:
        ratio = (plain_m - math.log1p(plain_m)) / (plain_m * plain_m)
    loss = s if s == c.inf else s - ratio * m * m
    if plain_m > c.one:
        loss = (math.log1p(plain_m) * unit - t) * unit
    return c.zero if loss <= c.zero else loss


@compiled
def load(row: Any, to: Any) -> None:
    for k in range(len(row)):
        to[k] = row[k]


@compiled
def store(slope: Any, p: Any, m: Any, factor: Any, out: Any) -> None:
    for k in range(len(out)):
        out[k] = (slope[k] - p[k] * m) * factor


@compiled
def loss_and_slope(z: Any, v: Any, q: Any, p: Any, tops: Any, how: Any, is_close: bool, out: Any,
                   c: Any) -> Any:  # fmt: skip
    """Fill `out` with a slope; return the loss, M and a factor of a row, and whether it is close.

    The gradient is (slope − M p) times the factor. Which formula serves a row depends on that
    row alone; which one is tried first depends on the row before.
    """
    beta, factor, unit, least_kl, least_slope = how
    total = exponentials(v, tops[1], beta, p, c)
    if is_close:
        loss, m = accurate(z, v, p, tops, total, beta, factor, unit, out, c)
        if loss / unit / unit < c.nearly * least_kl:
            return loss, m, c.one / ((c.one + m / unit) * total), True
    log_r = math.log(total / exponentials(z, tops[2], beta, q, c))
    kl, number = quick(z, v, q, p, tops, beta, log_r, least_slope, out, c)
    kl /= total
    if least_kl <= kl < c.inf and number > c.zero:
        return kl * unit * unit, c.zero, unit / total, False
    loss, m = accurate(z, v, p, tops, total, beta, factor, unit, out, c)
    return loss, m, c.one / ((c.one + m / unit) * total), True


@compiled
def compute_rows(student: Any, teacher: Any, loss: Any, grad: Any, how: Any, grad_factor: Any,
                 space: Any, bits: Any, c: Any) -> None:  # fmt: skip
    """Fill the loss, and the gradient if it has rows."""
    z, v, q, p, slope, top = space[0], space[1], space[2], space[3], space[4], space[5]
    flat = space.reshape(len(space), -1)
    is_close = False
    for i in range(len(student)):
        load(student[i], flat[0])
        load(teacher[i], flat[1])
        if has_nan(z, v):
            loss[i] = np.nan
            if len(grad):
                grad[i][:] = np.nan
            continue
        bits[5, 0, 0], bits[5, 0, 1] = largest(bits[0]), largest(bits[1])
        z_max, v_top = top[0, 0], top[0, 1]
        z_top = at_top(z, v, v_top, c)
        tops = (z_top if abs(z_top) < c.inf else z_max), v_top, z_max
        loss[i], m, factor, is_close = loss_and_slope(z, v, q, p, tops, how, is_close, slope, c)
        if len(grad):
            store(flat[4], flat[3], m, factor * grad_factor, grad[i])


def workspace(classes: int, dtype: np.dtype[Any]) -> Any:
    """Return room for six rows, in chunks, with excluded classes at their ends; and as bits."""
    chunks = -(-classes // CHUNK)
    lanes = PAD // dtype.itemsize
    width = -(-classes // (chunks * lanes)) * lanes
    space = np.full((6, chunks, width), -np.inf, dtype)
    return space, space.view(f"i{dtype.itemsize}")


def compute(
    student: Any, teacher: Any, loss: Any, grad: Any,
    beta: float, scaled: bool, grad_factor: float, least: tuple[float, float],
) -> None:  # fmt: skip
    """Fill the losses `(n,)` of rows `(n, K)`, and their gradients unless those have no rows."""
    dtype = student.dtype
    number = dtype.type
    beta = number(beta)
    how = (beta, number(1) if scaled else beta, 1 / beta if scaled else number(1))
    compute_rows(
        *map(_read_only, (student, teacher)), loss, grad, how + tuple(map(number, least)),
        number(grad_factor), *workspace(student.shape[1], dtype), numbers(dtype),
    )  # fmt: skip


def _read_only(rows: Any) -> Any:
    """Return a view of rows, or a copy where they are not aligned: one type of array for all."""
    rows = np.require(rows, requirements="CA").view()
    rows.flags.writeable = False
    return rows
