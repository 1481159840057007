"""Forward KL and its gradient in compiled loops: for each row, a few passes in the cache.

These are the formulas of `_formulas.py` and the quicker one of `_kernel.py`, written for one
row of many classes, and below for a group of rows of few classes; what is computed for one
class stands once. They cannot be NumPy's functions: to Numba, every literal is float64.
Numba compiles them at the first call, and stores the result on disk. What stands in another file
and calls them must change with this one; see `OF_SHARED` in `_compiled_divergences.py`.

What LLVM needs to compute several classes at once shapes the code: the exponential is a
polynomial in the loop and not a call, sums may be reordered, a maximum is one of integers, a
condition counts instead of comparing with what came before, and rows are padded with excluded
classes, so that no loop ends in single steps. Nor does a loop store a number or leave what was
there: that is a masked store, at which AMD's processors with registers of 256 bits are slow.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import cache
from typing import Any, NamedTuple, TypeVar, cast

import numba
import numpy as np
from numba import types
from numba.extending import overload

from kd_notes._formulas import CLIP, COTH, FAR, REACH

config: Any = numba.config
njit: Any = numba.njit  # its type lacks the options that `_compiler` gives

if config.DISABLE_JIT:
    raise ImportError("NUMBA_DISABLE_JIT is set")

# Bytes of a row that are added up as they come; sums of chunks are added by `add`. Where many
# classes have the same logits, longer sums in few registers are all rounded to the same side.
CHUNK = 512
PAD = 256  # bytes: chunks are as long as some whole number of these

# eʳ = 1 + r + r² g(r); these are the coefficients, from the constant on, of the polynomial that
# equals g at the Chebyshev points of ±0.505 log 2, slightly more than what r can be.
EXP = {
    "float32": [0.5, 0.16666573381900845, 0.04166655011030512, 0.008363773874405574,
                0.0013926926614021907],
    "float64": [0.5000000000000001, 0.16666666666666669, 0.04166666666662064,
                0.008333333333329793, 0.0013888888918939168, 0.00019841269864380513,
                2.4801518641395993e-05, 2.75572664186123e-06, 2.7621338669142925e-07,
                2.510134692835034e-08],
}  # fmt: skip
# artanh(s) = s + s³ g(s²); g at the Chebyshev points of [0, 1/9].
ARTANH = {
    "float32": [0.3333333366026371, 0.1999985316596486, 0.14296178997151418, 0.10853287900440187,
                0.11612164612011674],
    "float64": [0.3333333333333333, 0.20000000000007292, 0.1428571428355438, 0.11111111358713932,
                0.09090894718066429, 0.07692785032479312, 0.06657072104827468,
                0.06000536404795356, 0.04400369243072337, 0.08082022805971766],
}  # fmt: skip
# log 2 in two parts: n times the first is exact for the exponent n of any number.
LOG_2 = {"float32": float.fromhex("0x1.62e4p-1"), "float64": float.fromhex("0x1.62e42feep-1")}
ROOT_32, ROOT_64 = np.float32(0.5**0.5).view(np.int32), np.float64(0.5**0.5).view(np.int64)  # bits
LOG_2_REST = {"float32": 1.428606765330187e-06, "float64": 1.9082149292705877e-10}


class Numbers(NamedTuple):
    """What all rows share, in their dtype: a literal would make a loop compute in float64."""

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
    shift: Any  # added to n, it leaves the bits of the exponent of 2ⁿ/scale in the lowest ones
    scale: Any  # so small that 2ⁿ/scale is a normal number
    least: Any  # the logarithm of half the smallest number
    exp: tuple[Any, ...]
    coth: tuple[Any, ...]
    artanh: tuple[Any, ...]
    beta: Any = 1  # the inverse temperature
    unit: Any = 1  # what loss, twice, and slope are multiplied by: the temperature, or 1
    factor: Any = 1  # unit·beta
    grad_factor: Any = 1
    least_kl: Any = 0  # of `LEAST_KL` in `_kernel.py`
    least_slope: Any = 0
    loss_factor: Any = 1  # of other divergences
    widest: Any = 0  # for them the largest span of the logits in an ordinary row


@cache
def constants(dtype: np.dtype[Any]) -> Numbers:
    """Return the numbers that depend on the dtype alone."""
    info, name = np.finfo(dtype), dtype.name
    digits = info.nmant + 1
    shift = 1.5 * 2**info.nmant + info.maxexp - 1 + digits
    least = math.log(2) * (info.minexp - digits)
    single = [0, 0.5, 1, 2, 1 / 3, 1 / 4, math.inf, 1e-4, 0.999, REACH, FAR, CLIP]
    single += [1 / math.log(2), LOG_2[name], LOG_2_REST[name], shift, 2.0**-digits, least]
    tables = (tuple(map(dtype.type, reversed(table[name]))) for table in (EXP, COTH, ARTANH))
    return Numbers(*map(dtype.type, single), *tables)


def numbers(dtype: np.dtype[Any], **of_call: float) -> Numbers:
    """Return the constants, with the numbers that depend on a call."""
    return constants(dtype)._replace(**{k: dtype.type(x) for k, x in of_call.items()})


F = TypeVar("F", bound=Callable[..., Any])


def _compiler(*fastmath: str, from_python: bool = False, inline: bool = False) -> Callable[[F], F]:
    """Return Numba's decorator; what only compiled functions call is compiled more quickly."""
    options: dict[str, Any] = {"no_cpython_wrapper": not from_python, "no_cfunc_wrapper": True}
    options |= {
        "forceinline": inline,
        "nogil": True,
        "error_model": "numpy",
        "fastmath": set(fastmath),
    }

    def decorate(function: F) -> F:
        try:
            return cast("F", njit(**options, cache=True)(function))
        except RuntimeError:  # there is no folder that can be written
            return cast("F", njit(**options)(function))

    return decorate


compiled = _compiler("contract")
inlined = _compiler("contract", inline=True)  # of one class: a loop that calls is no vector loop
in_any_order = _compiler("contract", "nsz", "reassoc")  # the sums of a loop, and nothing else
for_python = _compiler("contract", from_python=True)


@_compiler()
def add_finite(total: Any, rest: Any, x: Any) -> Any:
    """Return the sum of all, rounded, and what that loses (Kahan); that is nan after infinity."""
    x += rest
    new = total + x
    return new, x - (new - total)


@_compiler()
def add(total: Any, rest: Any, x: Any, c: Any) -> Any:
    """As `add_finite`, in two operations more; nothing is lost if the sum is infinite."""
    new, lost = add_finite(total, rest, x)
    return new, lost if abs(new) < c.inf else c.zero


def power_of_two(shifted: Any) -> Any:
    """Return the power of two whose exponent, with its bias, is in the lowest bits."""


def _power_of_two(shifted: Any) -> Any:
    if shifted == types.float32:
        return lambda shifted: np.int32(np.float32(shifted).view(np.int32) << 23).view(np.float32)
    return lambda shifted: np.int64(np.float64(shifted).view(np.int64) << 52).view(np.float64)


def bits_of(x: Any) -> Any:
    """Return the bits of a float as an integer."""


def _bits_of(x: Any) -> Any:
    if x == types.float32:
        return lambda x: np.float32(x).view(np.int32)
    return lambda x: np.float64(x).view(np.int64)


def from_bits(bits: Any) -> Any:
    """Return the float that has the bits of an integer."""


def _from_bits(bits: Any) -> Any:
    if bits == types.int32:
        return lambda bits: np.int32(bits).view(np.float32)
    return lambda bits: np.int64(bits).view(np.float64)


def split(x: Any) -> Any:
    """Return n and a number f between √½ and √2 for which x = f 2ⁿ."""


def _split(x: Any) -> Any:
    if x == types.float32:
        return _split_32
    return _split_64


def _split_32(x: Any) -> Any:
    bits = np.float32(x).view(np.int32)
    n = np.int32(np.int32(bits - ROOT_32) >> 23)
    return np.float32(n), np.int32(bits - np.int32(n << 23)).view(np.float32)


def _split_64(x: Any) -> Any:
    bits = np.float64(x).view(np.int64)
    n = (bits - ROOT_64) >> 52
    return np.float64(n), np.int64(bits - (n << 52)).view(np.float64)


overload(power_of_two, strict=False)(_power_of_two)  # not strict: it has annotations
overload(bits_of, strict=False)(_bits_of)
overload(from_bits, strict=False)(_from_bits)
overload(split, strict=False)(_split)


@inlined
def polynomial(x: Any, coefficients: Any) -> Any:
    """Return a polynomial, four powers at once: each waits for fewer results than one by one."""
    square = x * x
    fourth = square * square
    total, first = coefficients[0], 1 + (len(coefficients) - 1) % 4
    for i in range(1, first):
        total = total * x + coefficients[i]
    for i in range(first, len(coefficients), 4):
        high = coefficients[i] * x + coefficients[i + 1]
        low = coefficients[i + 2] * x + coefficients[i + 3]
        total = total * fourth + (high * square + low)
    return total


@inlined
def exp(x: Any, c: Any) -> Any:
    """Return eˣ, rounded once where it is below the smallest normal number.

    Where that rounds to 0, as of an excluded class, e⁰ is computed instead: with numbers below the
    smallest normal one, Intel's processors would take tens of times as long.
    """
    is_zero = x <= c.least
    x = c.zero if is_zero else x
    shifted = x * c.log2_e + c.shift
    n = shifted - c.shift
    r = (x - n * c.log_2) - n * c.log_2_rest
    power = power_of_two(shifted) * c.scale
    power_r = power * (r + r * r * polynomial(r, c.exp)) + power
    return c.zero if is_zero else power_r


@inlined
def is_small(u: Any, c: Any) -> bool:
    """Whether |u/(2 + u)| ≤ 1/3, up to where the polynomial of artanh serves."""
    return bool((u >= -c.half) & (u <= c.one))


@inlined
def log1p(u: Any, m: Any, c: Any) -> Any:
    """Return log m for m = 1 + u; and of a small u, (u − log m)/u² and (log m)/u.

    With s = u/(2 + u) it is 2 artanh(s); elsewhere m = f 2ⁿ, and s = (f − 1)/(f + 1).
    """
    n, f = split(m)
    twice_r = c.two / ((c.two + u) if is_small(u, c) else (f + c.one))
    s = c.half * (u if is_small(u, c) else f - c.one) * twice_r
    series = s * polynomial(s * s, c.artanh)
    log = c.two * s + c.two * s * s * series
    log = log if is_small(u, c) else n * c.log_2 + (n * c.log_2_rest + log)
    return log, c.half * twice_r * (c.one - twice_r * series), twice_r + twice_r * s * series


@inlined
def larger(x: Any, y: Any, c: Any) -> Any:
    """Return the larger number. The sum keeps LLVM from a masked store of it."""
    return (x if x > y else y) + c.zero


@compiled
def product(p: Any, x: Any, c: Any) -> Any:
    """Return p x, where 0·∞ = 0, but −∞ is unchanged even if p underflows."""
    finite = p * x if p > c.zero else c.zero
    return x if x == -c.inf else finite


@in_any_order
def load(row: Any, to: Any, c: Any) -> Any:
    """Copy a row; return its largest number, of any value where there is nan, and if there is.

    The largest is found from the bits: negative numbers have the order of their size.
    """
    low = high = bits_of(row[0])
    nans = c.zero
    for k in range(len(row)):
        bits = bits_of(row[k])
        low, high = min(low, bits), max(high, bits)
        nans += c.zero if row[k] == row[k] else c.one
        to[k] = row[k]
    return from_bits(high if high >= 0 else low), nans > c.zero


@compiled
def scaled_exp(x: Any, top: Any, c: Any) -> Any:
    return exp((x - top) * c.beta, c)


@compiled
def below_top(x: Any, top: Any, power: Any, c: Any) -> Any:
    """Return an exponential, or 0 if it is a largest one, and whether it is that as 1 or 0."""
    return (c.zero, c.one) if x == top else (power, c.zero)


@in_any_order
def exponentials(x: Any, top: Any, out: Any, c: Any) -> Any:
    """Fill `out` with e^(β(x − top)), and return its sum, to which the largest are added last.

    The halves of a chunk have sums of their own, which are shorter.
    """
    total = rest = ties = c.zero
    for i in range(len(x)):
        xi, to, half = x[i], out[i], len(x[i]) // 2
        first = second = c.zero
        for k in range(half):
            to[k] = scaled_exp(xi[k], top, c)
            to[half + k] = scaled_exp(xi[half + k], top, c)
            of_first, is_top = below_top(xi[k], top, to[k], c)
            of_second, is_top_too = below_top(xi[half + k], top, to[half + k], c)
            first += of_first
            second += of_second
            ties += is_top + is_top_too
        total, rest = add(total, rest, first + second, c)
    return ties + (total + rest)


class Tops(NamedTuple):
    """The student's logit at the teacher's top class, and the largest logits."""

    z: Any
    v: Any
    z_max: Any


@compiled
def quick_terms(z: Any, v: Any, q: Any, p: Any, tops: Any, log_r: Any,
                r: Any, c: Any) -> Any:  # fmt: skip
    slope = r * q - p
    x = (z - tops.z_max) * c.beta - (v - tops.v) * c.beta + log_r
    return slope, slope - product(p, x, c)


@in_any_order
def quick(z: Any, v: Any, q: Any, p: Any, tops: Any, log_r: Any, factor: Any,
          grad: Any, c: Any) -> Any:  # fmt: skip
    """Fill `grad` with a factor times r q − p, as `_quick` of `_kernel.py`.

    Return the sum of  q − p log(q/p),  and how many |r q − p| are large.
    """
    total = rest = number = c.zero
    r = math.exp(log_r)
    for i in range(len(z)):
        zi, vi, qi, pi, to = z[i], v[i], q[i], p[i], grad[i * z.shape[1] :]
        part = c.zero
        for k in range(len(zi)):
            qi[k], term = quick_terms(zi[k], vi[k], qi[k], pi[k], tops, log_r,
                                      r, c)  # fmt: skip
            part += term
            number += c.one if abs(qi[k]) >= c.least_slope else c.zero
        for k in range(min(len(qi), len(to))):
            to[k] = qi[k] * factor
        total, rest = add(total, rest, part, c)
    return total + rest, number


@compiled
def above(z: Any, v: Any, v_top: Any, z_level: Any, c: Any) -> Any:
    return z - z_level if v == v_top else c.zero


@in_any_order
def sum_at_top(z: Any, v: Any, v_top: Any, z_level: Any, c: Any) -> Any:
    """Return the sum of z less a level over the teacher's top classes, and their number."""
    total = ties = c.zero
    for i in range(len(z)):
        zi, vi = z[i], v[i]
        for k in range(len(zi)):
            total += above(zi[k], vi[k], v_top, z_level, c)
            ties += c.one if vi[k] == v_top else c.zero
    return total, ties


@compiled
def at_top(z: Any, v: Any, v_top: Any, c: Any) -> Any:
    """Return z at the teacher's top class; the mean of several, exactly if they are equal."""
    total, ties = sum_at_top(z, v, v_top, c.zero, c)
    if ties == c.one:
        return total
    mean = total / ties
    return mean + sum_at_top(z, v, v_top, mean, c)[0] / ties


class Levels(NamedTuple):
    """What a difference of logits is counted from; see `difference` of `_formulas.py`."""

    z: Any
    v: Any
    offset: Any
    reach: Any
    center: Any


@compiled
def levels(z_level: Any, v_level: Any, center: Any, c: Any) -> Any:
    offset = z_level - v_level
    reach = abs(offset) if abs(offset) * c.beta > c.one else c.zero
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
        total, rest = add(total, rest, part, c)
    return total + rest


@compiled
def near(p: Any, x: Any, d: Any, c: Any) -> Any:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d), where |d| is at most REACH and x = unit·d."""
    h = c.half - d * polynomial(d * d, c.coth)
    p_expm1 = p * x / (c.one - d * h)
    return p_expm1, p_expm1 * (h * x)


@compiled
def wide(p: Any, q: Any, p_x: Any, c: Any) -> Any:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d) from p, p eᵈ and unit·p d."""
    p_expm1 = c.unit * (q - p)
    return p_expm1, c.unit * (p_expm1 - p_x)


@compiled
def near_term(z: Any, v: Any, p: Any, level: Any, c: Any) -> Any:
    x = difference(z, v, level, c)
    return near(p, x * c.factor, x * c.beta, c), abs(x * c.beta)


@compiled
def term(z: Any, v: Any, p: Any, level: Any, c: Any) -> Any:
    x = difference(z, v, level, c)
    p_x = product(p, x * c.factor, c)
    near_expm1, near_phi = near(p, x * c.factor, x * c.beta, c)
    q = exp(((z - level.z) - level.center) * c.beta, c)
    wide_expm1, wide_phi = wide(p, q, p_x, c)
    is_near = abs(x * c.beta) <= c.reach
    return (near_expm1 if is_near else wide_expm1), (near_phi if is_near else wide_phi), p_x


@in_any_order
def near_terms(z: Any, v: Any, p: Any, level: Any, out: Any, c: Any) -> Any:
    """Fill `out` with unit·p (eᵈ − 1); return the sums of both terms and two counts.

    These are of the classes with |d| > REACH, for which the terms are wrong, and > FAR.
    """
    m = m_rest = s = s_rest = wide = far = c.zero
    for i in range(len(z)):
        zi, vi, pi, to = z[i], v[i], p[i], out[i]
        m_part = s_part = c.zero
        for k in range(len(zi)):
            (to[k], p_phi), d = near_term(zi[k], vi[k], pi[k], level, c)
            m_part += to[k]
            s_part += p_phi
            wide += c.zero if d <= c.reach else c.one
            far += c.zero if d <= c.far else c.one
        m, m_rest = add(m, m_rest, m_part, c)
        s, s_rest = add(s, s_rest, s_part, c)
    return m + m_rest, s + s_rest, wide, far


@in_any_order
def all_terms(z: Any, v: Any, p: Any, level: Any, out: Any, c: Any) -> Any:
    """Fill `out` as `near_terms`, for every d; return the sums of both terms and of p x."""
    m = m_rest = s = s_rest = t = t_rest = c.zero
    for i in range(len(z)):
        zi, vi, pi, to = z[i], v[i], p[i], out[i]
        m_part = s_part = t_part = c.zero
        for k in range(len(zi)):
            to[k], p_phi, p_x = term(zi[k], vi[k], pi[k], level, c)
            m_part += to[k]
            s_part += p_phi
            t_part += p_x
        m, m_rest = add(m, m_rest, m_part, c)
        s, s_rest = add(s, s_rest, s_part, c)
        t, t_rest = add(t, t_rest, t_part, c)
    return m + m_rest, s + s_rest, t + t_rest


@compiled
def level_for_outliers(z: Any, v: Any, p: Any, tops: Any, total: Any, spare: Any, c: Any) -> Any:
    """Return the levels for a row with |d| > FAR somewhere; see `Pair` of `_formulas.py`."""
    bound = c.clip / c.beta
    level = levels(tops.z, tops.v, c.zero, c)
    center = mean(z, v, p, level, bound, c) / total
    if abs(center) * c.beta > c.one or (tops.z_max - tops.z) * c.beta > c.two:
        log_sum = math.log(exponentials(z, tops.z_max, spare, c) / total)
        level = levels(tops.z_max + log_sum / c.beta, tops.v, c.zero, c)
        center = mean(z, v, p, level, bound, c) / total
    return levels(level.z, tops.v, center, c)


@compiled
def centered(z: Any, v: Any, p: Any, tops: Any, total: Any, out: Any, c: Any) -> Any:
    """Fill `out` with unit·p (eᵈ − 1); return the sums of the terms, and what d is counted from.

    The third sum, of p x, is 0 where no |d| is above REACH.
    """
    is_dominated = total < c.two
    x = mean(z, v, p, levels(tops.z, tops.v, c.zero, c), c.inf, c) / total
    z_level, center = (tops.z, x) if is_dominated else (tops.z + x, c.zero)
    level = levels(z_level, tops.v, center, c)
    m, s, wide, far = near_terms(z, v, p, level, out, c)
    t = c.zero
    if wide > c.zero:
        if far > c.zero:
            level = level_for_outliers(z, v, p, tops, total, out, c)
        m, s, t = all_terms(z, v, p, level, out, c)
    return m, s, t, level


@compiled
def accurate(z: Any, v: Any, p: Any, tops: Any, total: Any, out: Any, c: Any) -> Any:
    """Fill `out` with unit·p (eᵈ − 1), and return loss and M, as `loss_and_slope` there."""
    m, s, t, _ = centered(z, v, p, tops, total, out, c)
    return loss_of(m / total, s / total, t / total, c), m / total


@compiled
def loss_of(m: Any, s: Any, t: Any, c: Any) -> Any:
    """Return unit²·KL from M, S and Σ p d, as `_loss` of `_formulas.py`."""
    plain_m = m / c.unit
    ratio = c.half - plain_m * (c.third - plain_m * c.quarter)
    if not abs(plain_m) < c.small:
        ratio = (plain_m - math.log1p(plain_m)) / (plain_m * plain_m)
    loss = s if s == c.inf else s - ratio * m * m
    if plain_m > c.one:
        loss = (math.log1p(plain_m) * c.unit - t) * c.unit
    return c.zero if loss <= c.zero else loss


@compiled
def store(slope: Any, p: Any, m: Any, factor: Any, out: Any) -> None:
    for k in range(len(out)):
        out[k] = (slope[k] - p[k] * m) * factor


@compiled
def compute_accurate(
    z: Any, v: Any, q: Any, p: Any, tops: Any, total: Any, grad: Any, c: Any
) -> Any:
    """Fill the gradient, if there is room for it, and return the loss."""
    z_top = at_top(z, v, tops.v, c)
    tops = Tops(z_top if abs(z_top) < c.inf else tops.z_max, tops.v, tops.z_max)
    loss, m = accurate(z, v, p, tops, total, q, c)
    factor = c.grad_factor / ((c.one + m / c.unit) * total)
    store(q.reshape(-1), p.reshape(-1), m, factor, grad)
    return loss


@compiled
def compute_row(z: Any, v: Any, q: Any, p: Any, z_max: Any, v_top: Any, is_close: bool, grad: Any,
                c: Any) -> Any:  # fmt: skip
    """Fill the gradient, if there is room for it; return the loss, and whether it is small.

    Which formula serves a row depends on that row alone; which one is tried first depends on the
    row before.
    """
    tops = Tops(z_max, v_top, z_max)
    total = exponentials(v, v_top, p, c)
    if is_close:
        loss = compute_accurate(z, v, q, p, tops, total, grad, c)
        if loss / c.unit / c.unit < c.nearly * c.least_kl:
            return loss, True
    log_r = math.log(total / exponentials(z, z_max, q, c))
    kl, number = quick(z, v, q, p, tops, log_r, c.unit / total * c.grad_factor, grad, c)
    kl /= total
    if c.least_kl <= kl < c.inf and number > c.zero:
        return kl * c.unit * c.unit, False
    return compute_accurate(z, v, q, p, tops, total, grad, c), True


@for_python
def compute_rows(student: Any, teacher: Any, loss: Any, grad: Any, space: Any, c: Any) -> None:
    """Fill the loss, and the gradient if it has rows."""
    z, v, q, p = space[0], space[1], space[2], space[3]
    flat = space.reshape(len(space), -1)
    no_grad, is_close = flat[0, :0], False
    for i in range(len(student)):
        to = grad[i] if len(grad) else no_grad
        z_max, z_has_nan = load(student[i], flat[0], c)
        v_top, v_has_nan = load(teacher[i], flat[1], c)
        if z_has_nan or v_has_nan:
            loss[i] = np.nan
            to[:] = np.nan
        else:
            loss[i], is_close = compute_row(z, v, q, p, z_max, v_top, is_close, to, c)


# Few classes: the same formulas for a group of LANES rows at once, where a loop over the classes
# of one row would be too short. Numbers for each class and row of a group are in `classes`,
# `(K, CLASS)`, numbers for each row in `rows`; these names say where. As each is one array, and
# the offsets are constants, LLVM sees that a loop over the rows does not write what it reads.
LANES = 64
Z, V, P, SLOPE = (LANES * i for i in range(4))
CLASS = LANES * 4 + 16  # with a power of two, only some classes would fit into the cache
(Z_MAX, V_TOP, NAN, LOW, HIGH, Z_TOP, TOTAL, LOG_R, R, LEVEL, OFFSET, WITHIN, CENTER, LOSS,
 FACTOR) = (LANES * i for i in range(15))  # fmt: skip
N_WIDE, N_FAR, M, S, T = (LANES * i for i in (15, 16, 17, 19, 21))  # what is counted or added up
ROWS = LANES * 23  # what a sum loses to rounding follows it


@compiled
def clear_from(rows: Any, at: int, c: Any) -> None:
    for j in range(at, ROWS):
        rows[j] = c.zero


@compiled
def add_to(rows: Any, at: int, x: Any, c: Any) -> None:
    rows[at], rows[at + LANES] = add(rows[at], rows[at + LANES], x, c)


@compiled
def add_finite_to(rows: Any, at: int, x: Any) -> None:
    rows[at], rows[at + LANES] = add_finite(rows[at], rows[at + LANES], x)


@compiled
def sum_of(rows: Any, at: int) -> Any:
    return rows[at] + rows[at + LANES]


@compiled
def group_tops(classes: Any, rows: Any, c: Any) -> None:
    """Find the largest logits; NAN becomes nan for a row with nan, and else 0."""
    for j in range(LANES):
        rows[Z_MAX + j] = rows[V_TOP + j] = -c.inf
        rows[NAN + j] = c.zero
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            z, v, both = x[Z + j], x[V + j], x[Z + j] + x[V + j]
            rows[Z_MAX + j] = larger(z, rows[Z_MAX + j], c)
            rows[V_TOP + j] = larger(v, rows[V_TOP + j], c)
            rows[NAN + j] += c.zero if both == both else both


@compiled
def group_exponentials(classes: Any, rows: Any, at: int, top: int, to: int, c: Any) -> None:
    """Store the exponentials of what is at a place, and their sums in S."""
    clear_from(rows, S, c)
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            x[to + j] = scaled_exp(x[at + j], rows[top + j], c)
            add_finite_to(rows, S + j, x[to + j])


@compiled
def group_teacher(classes: Any, rows: Any, c: Any) -> None:
    group_exponentials(classes, rows, V, V_TOP, P, c)
    for j in range(LANES):
        rows[TOTAL + j] = sum_of(rows, S + j) + rows[NAN + j]


@compiled
def group_log_r(classes: Any, rows: Any, c: Any) -> None:
    """Compute log r and r, and leave the student's exponentials in SLOPE."""
    group_exponentials(classes, rows, Z, Z_MAX, SLOPE, c)
    for j in range(LANES):
        ratio = rows[TOTAL + j] / sum_of(rows, S + j)
        log_r, _, _ = log1p(ratio - c.one, ratio, c)
        rows[LOG_R + j], rows[R + j] = log_r, exp(log_r, c)


@compiled
def group_quick_terms(classes: Any, rows: Any, c: Any) -> None:
    """Store r q − p and the sum of its terms; count in N_WIDE how many are large enough."""
    clear_from(rows, N_WIDE, c)
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            tops = Tops(c.zero, rows[V_TOP + j], rows[Z_MAX + j])
            slope, term = quick_terms(x[Z + j], x[V + j], x[SLOPE + j], x[P + j], tops,
                                      rows[LOG_R + j], rows[R + j], c)  # fmt: skip
            x[SLOPE + j] = slope
            add_finite_to(rows, S + j, term)
            rows[N_WIDE + j] += c.one if abs(slope) >= c.least_slope else c.zero


@compiled
def group_quick(classes: Any, rows: Any, c: Any) -> None:
    """Compute a group as `quick`; N_FAR becomes 1 where the other formula is needed."""
    group_tops(classes, rows, c)
    group_teacher(classes, rows, c)
    group_log_r(classes, rows, c)
    group_quick_terms(classes, rows, c)
    for j in range(LANES):
        kl = sum_of(rows, S + j) / rows[TOTAL + j]
        is_served = (c.least_kl <= kl) & (kl < c.inf) & (rows[N_WIDE + j] > c.zero)
        rows[N_FAR + j] = c.zero if is_served else c.one
        rows[LOSS + j] = kl * c.unit * c.unit
        rows[M + j], rows[FACTOR + j] = c.zero, c.unit / rows[TOTAL + j]


@compiled
def group_at_top(classes: Any, rows: Any, at: int, top: int, z: int, z_max: int, to: int,
                 c: Any) -> None:  # fmt: skip
    """Find z at the other's top class; the mean of several, exactly if they are equal."""
    clear_from(rows, S, c)
    for j in range(LANES):
        rows[LOW + j], rows[HIGH + j] = c.inf, -c.inf
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            there, is_top = x[z + j], x[at + j] == rows[top + j]
            rows[S + j] += there if is_top else c.zero
            rows[T + j] += c.one if is_top else c.zero
            rows[LOW + j] = -larger(-there if is_top else -c.inf, -rows[LOW + j], c)
            rows[HIGH + j] = larger(there if is_top else -c.inf, rows[HIGH + j], c)
    for j in range(LANES):
        there = min(max(rows[S + j] / rows[T + j], rows[LOW + j]), rows[HIGH + j])
        rows[to + j] = there if abs(there) < c.inf else rows[z_max + j]


@compiled
def set_levels(rows: Any, c: Any) -> None:
    for j in range(LANES):
        level = levels(rows[LEVEL + j], rows[V_TOP + j], c.zero, c)
        rows[OFFSET + j], rows[WITHIN + j] = level.offset, level.reach


@compiled
def levels_of(rows: Any, j: int) -> Any:
    return Levels(rows[LEVEL + j], rows[V_TOP + j], rows[OFFSET + j], rows[WITHIN + j],
                  rows[CENTER + j])  # fmt: skip


@compiled
def group_mean(classes: Any, rows: Any, bound: Any, c: Any) -> None:
    """Store in T the mean of the differences from LEVEL, clipped to ± a bound."""
    for j in range(LANES):
        rows[CENTER + j] = c.zero
    set_levels(rows, c)
    clear_from(rows, T, c)
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            level = levels_of(rows, j)
            add_to(rows, T + j, clipped_term(x[Z + j], x[V + j], x[P + j], level, bound, c), c)
    for j in range(LANES):
        rows[T + j] = sum_of(rows, T + j) / rows[TOTAL + j]


@compiled
def group_center(classes: Any, rows: Any, c: Any) -> None:
    for j in range(LANES):
        rows[LEVEL + j] = rows[Z_TOP + j]
    group_mean(classes, rows, c.inf, c)
    for j in range(LANES):
        is_dominated = rows[TOTAL + j] < c.two
        rows[LEVEL + j] += c.zero if is_dominated else rows[T + j]
        rows[CENTER + j] = rows[T + j] if is_dominated else c.zero
    set_levels(rows, c)


@compiled
def group_near_terms(classes: Any, rows: Any, c: Any) -> Any:
    """Store and add up the terms as `near_terms`; return both counts of the whole group."""
    clear_from(rows, N_WIDE, c)
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            level = levels_of(rows, j)
            (x[SLOPE + j], p_phi), d = near_term(x[Z + j], x[V + j], x[P + j], level, c)
            add_to(rows, M + j, x[SLOPE + j], c)
            add_to(rows, S + j, p_phi, c)
            rows[N_WIDE + j] += c.zero if d <= c.reach else c.one
            rows[N_FAR + j] += c.zero if d <= c.far else c.one
    wide = far = c.zero
    for j in range(LANES):
        wide += rows[N_WIDE + j]
        far += rows[N_FAR + j]
    return wide, far


@compiled
def group_all_terms(classes: Any, rows: Any, c: Any) -> None:
    clear_from(rows, M, c)
    for k in range(len(classes)):
        x = classes[k]
        for j in range(LANES):
            level = levels_of(rows, j)
            x[SLOPE + j], p_phi, p_x = term(x[Z + j], x[V + j], x[P + j], level, c)
            add_to(rows, M + j, x[SLOPE + j], c)
            add_to(rows, S + j, p_phi, c)
            add_to(rows, T + j, p_x, c)


@compiled
def group_levels_for_outliers(classes: Any, rows: Any, c: Any) -> None:
    """Change LEVEL and CENTER where N_FAR is not 0, as `level_for_outliers`."""
    bound = c.clip / c.beta
    group_exponentials(classes, rows, Z, Z_MAX, SLOPE, c)
    for j in range(LANES):
        rows[R + j], rows[LOG_R + j] = rows[LEVEL + j], rows[CENTER + j]
        rows[LEVEL + j] = rows[Z_TOP + j]
    group_mean(classes, rows, bound, c)
    for j in range(LANES):
        top = rows[Z_MAX + j]
        if abs(rows[T + j]) * c.beta > c.one or (top - rows[Z_TOP + j]) * c.beta > c.two:
            log_sum = math.log(sum_of(rows, S + j) / rows[TOTAL + j])
            rows[LEVEL + j] = top + log_sum / c.beta
    group_mean(classes, rows, bound, c)
    for j in range(LANES):
        is_far = rows[N_FAR + j] > c.zero
        rows[LEVEL + j] = rows[LEVEL + j] if is_far else rows[R + j]
        rows[CENTER + j] = rows[T + j] if is_far else rows[LOG_R + j]
    set_levels(rows, c)


@compiled
def group_centered(classes: Any, rows: Any, c: Any) -> None:
    """Store unit·p (eᵈ − 1), and the sums of the terms in M, S and T, as `centered`."""
    group_tops(classes, rows, c)
    group_teacher(classes, rows, c)
    group_at_top(classes, rows, V, V_TOP, Z, Z_MAX, Z_TOP, c)
    group_center(classes, rows, c)
    wide, far = group_near_terms(classes, rows, c)
    if wide > c.zero:
        if far > c.zero:
            group_levels_for_outliers(classes, rows, c)
        group_all_terms(classes, rows, c)


@compiled
def group_accurate(classes: Any, rows: Any, c: Any) -> None:
    """Compute a group as `accurate`; N_FAR becomes 1 where the other formula may be better."""
    group_centered(classes, rows, c)
    for j in range(LANES):
        total = rows[TOTAL + j]
        m = sum_of(rows, M + j) / total
        s, t = sum_of(rows, S + j) / total, sum_of(rows, T + j) / total
        rows[LOSS + j] = loss_of(m, s, t, c)
        rows[M + j], rows[FACTOR + j] = m, c.one / ((c.one + m / c.unit) * total)
        is_close = rows[LOSS + j] / c.unit / c.unit < c.nearly * c.least_kl
        rows[N_FAR + j] = c.zero if is_close else c.one


@compiled
def load_group(logits: Any, index: Any, classes: Any, at: int) -> None:
    for j in range(LANES):
        row = logits[index[j]]
        for k in range(len(row)):
            classes[k, at + j] = row[k]


@compiled
def store_group(classes: Any, rows: Any, index: Any, loss: Any, grad: Any, c: Any) -> None:
    for j in range(LANES):
        loss[index[j]] = rows[LOSS + j]
        rows[FACTOR + j] *= c.grad_factor
    if len(grad):
        for k in range(len(classes)):
            x = classes[k]
            for j in range(LANES):
                x[SLOPE + j] = (x[SLOPE + j] - x[P + j] * rows[M + j]) * rows[FACTOR + j]
        for j in range(LANES):
            to = grad[index[j]]
            for k in range(len(to)):
                to[k] = classes[k, SLOPE + j]


@for_python
def compute_chosen(is_close: bool, chosen: Any, student: Any, teacher: Any, loss: Any, grad: Any,
                   c: Any) -> int:  # fmt: skip
    """Compute the chosen rows by one formula; return for how many the other may be better.

    The numbers of these are then the first of the chosen ones. If the last group is smaller
    than the others, its last row is there several times.
    """
    classes = np.empty((student.shape[1], CLASS), loss.dtype)
    rows, index = np.empty(ROWS, loss.dtype), np.empty(LANES, np.uintp)
    last, left = len(chosen) - 1, 0
    for first in range(0, len(chosen), LANES):
        for j in range(LANES):
            index[j] = chosen[min(first + j, last)]
        load_group(student, index, classes, Z)
        load_group(teacher, index, classes, V)
        if is_close:
            group_accurate(classes, rows, c)
        else:
            group_quick(classes, rows, c)
        store_group(classes, rows, index, loss, grad, c)
        for j in range(min(LANES, len(chosen) - first)):
            chosen[left] = index[j]
            left += rows[N_FAR + j] > c.zero
    return left


def compute_groups(
    student: Any, teacher: Any, loss: Any, grad: Any, is_close: bool, c: Any
) -> bool:
    """Fill the loss, and the gradient if it has rows; return which formula served most rows."""
    chosen = np.arange(len(student), dtype=np.uintp)

    def compute(is_close: bool, size: int) -> int:
        return compute_chosen(is_close, chosen[:size], student, teacher, loss, grad, c)

    others = left = compute(is_close, len(chosen))
    if is_close:
        left = compute(False, left)
    if left:
        compute(True, left)
    return is_close != (2 * others > len(student))


def workspace(classes: int, dtype: np.dtype[Any], pad: int = PAD) -> Any:
    """Return room for four rows, in chunks, with excluded classes at their ends."""
    size = classes * dtype.itemsize
    chunks = -(-size // CHUNK)
    width = -(-size // (chunks * pad)) * pad // dtype.itemsize
    return np.full((4, chunks, width), -np.inf, dtype)


def read_only(rows: Any) -> Any:
    """Return a view of rows, or a copy where they are not aligned: one type of array for all."""
    rows = np.require(rows, requirements=["C", "A"]).view()
    rows.flags.writeable = False
    return rows
