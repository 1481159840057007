"""Forward KL and its gradient in one kernel for a GPU: a row at a time, in chunks of classes.

These are the formulas of `_formulas.py`, in float32. Each pass reads the logits of a row anew,
which may still be in the cache. Numbers of a row, such as a sum, are float64, and so is the
arithmetic on them; a chunk is added up as a tree in float32. Tensors of float64 would need a
temperature in float64, which Triton does not pass to a kernel: PyTorch computes them.

`TRITON_INTERPRET=1`, set before Triton is imported, runs the same code in NumPy.
"""

# mypy: disable-error-code="no-untyped-def,untyped-decorator"

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import torch
import triton
import triton.language as tl
from torch import Tensor

from kd_notes import _formulas
from kd_notes.torch._operations import inverse

if TYPE_CHECKING:
    from kd_notes.torch._soft_formula import SoftFormula

CHUNK = 2048  # at most so many classes at once
WARPS = 8

REACH, FAR, CLIP = map(tl.constexpr, (_formulas.REACH, _formulas.FAR, _formulas.CLIP))
G_0, G_1, G_2 = map(tl.constexpr, _formulas.COTH["float32"])
INF, NAN = tl.constexpr(math.inf), tl.constexpr(math.nan)

LOG2_E = tl.constexpr(1 / math.log(2))
# log 2 in two parts: n times the first is exact for the exponent n of any number.
LOG_2, LOG_2_REST = map(tl.constexpr, (float.fromhex("0x1.62e4p-1"), 1.428606765330187e-06))
LEAST = tl.constexpr(-104.0)  # eˣ rounds to 0 below it
SMALL = tl.constexpr(2.0**-64)


def by_triton(
    student: Tensor, teacher: Tensor, how: SoftFormula, *, loss: Tensor, grad: Tensor
) -> None:
    """Fill loss and gradient of rows in float32 or narrower, whose classes are adjacent."""
    if not loss.numel():
        return
    classes, beta = student.shape[-1], inverse(how.temperature, torch.float32)
    z, v = student.reshape(-1, classes), teacher.reshape(-1, classes)
    unit = 1 / beta if how.scaled else 1.0
    slope_unit = 1.0 if how.scaled else min(1 / how.temperature, torch.finfo(torch.float32).max)
    with torch.cuda.device_of(student):
        _loss_and_slope[(len(z),)](
            *(z, v, loss, grad, z.stride(0), v.stride(0), classes, how.teacher_factor),
            *(beta, unit, slope_unit),
            chunk=min(CHUNK, triton.next_power_of_2(classes)),
            num_warps=WARPS,
            enable_fp_fusion=False,  # a GPU rounds as the interpreter does
        )


@triton.jit
def _loss_and_slope(
    student, teacher, loss, grad, z_stride, v_stride, classes, teacher_factor,
    beta, unit, slope_unit, chunk: tl.constexpr,
):  # fmt: skip
    """Store loss and gradient of a row, scaled or not, as `loss_and_slope` of `_formulas.py`."""
    i = tl.program_id(0).to(tl.int64)
    row = student + i * z_stride, teacher + i * v_stride, classes, teacher_factor
    tops, is_nan = _tops(row, chunk)
    level, total = _level(row, tops, beta, chunk)
    m, s, t = _sums(row, level, beta, unit, chunk)
    total = tl.where(is_nan, NAN, total)
    m /= total
    tl.store(loss + i, _loss(m, s / total, t / total, unit).to(tl.float32))
    factor = (slope_unit / ((1 + m / unit) * total)).to(tl.float32)
    m = m.to(tl.float32)
    for start in range(0, classes, chunk):
        k, z, v = _load(row, start, chunk)
        p, p_expm1, _, _ = _terms(z, v, level, beta, unit)
        tl.store(grad + i * classes + k, (p_expm1 - p * m) * factor, mask=k < classes)


@triton.jit
def _load(row, start, chunk: tl.constexpr):
    """Return numbers of classes, and both networks' logits; after the last, excluded classes."""
    z_row, v_row, classes, teacher_factor = row
    k = start + tl.arange(0, chunk)
    z = tl.load(z_row + k, mask=k < classes, other=-INF).to(tl.float32)
    v = tl.load(v_row + k, mask=k < classes, other=-INF).to(tl.float32)
    return k, z, tl.where(v == -INF, v, v * teacher_factor)


@triton.jit
def _exp(x):
    """Return eˣ. The error of `tl.exp` on a GPU grows with |x|."""
    x = tl.maximum(x, LEAST)
    n = tl.floor(x * LOG2_E + 0.5)
    rest = (x - n * LOG_2) - n * LOG_2_REST
    power = ((n.to(tl.int32) + 191) << 23).to(tl.float32, bitcast=True)  # 2ⁿ/SMALL, normal
    return tl.exp2(rest * LOG2_E) * power * SMALL


@triton.jit
def _tops(row, chunk: tl.constexpr):
    """Return the largest z, z at the teacher's top class, the largest v; and if all is nan."""
    z_max = tl.full((), -INF, tl.float32)
    z_top, v_top = z_max, z_max
    invalid = tl.full((), 0, tl.int32)
    for start in range(0, row[2], chunk):
        _, z, v = _load(row, start, chunk)
        is_valid = (z < INF) & (v < INF)  # nor nan
        invalid += tl.sum(tl.where(is_valid, 0, 1), 0)
        z_max = tl.maximum(z_max, tl.max(z, 0))
        top = tl.max(v, 0)
        z_top = tl.where(top > v_top, tl.max(tl.where(v == top, z, -INF), 0), z_top)
        v_top = tl.maximum(v_top, top)
    is_nan = (invalid > 0) | (v_top == -INF) | (z_max == -INF)
    return (z_max, z_top, v_top), is_nan


@triton.jit
def _difference(z, v, z_level, v_level, beta):
    offset = z_level - v_level
    reach = tl.where(tl.abs(offset) * beta > 1, tl.abs(offset), 0.0)
    below = v - v_level
    x = tl.where(tl.abs(below) < reach, (z - z_level) - below, (z - v) - offset)
    return tl.where((z == -INF) & (v == -INF), 0.0, x)


@triton.jit
def _level(row, tops, beta, chunk: tl.constexpr):
    """Return what x is counted from, chosen as by `Pair`, and the normalizer of p."""
    z_max, z_top, v_top = tops
    ties = tl.full((), 0, tl.float64)
    others, z_total, mean, clipped = ties, ties, ties, ties
    least = tl.full((), 0, tl.float32)
    most = least
    for start in range(0, row[2], chunk):
        _, z, v = _load(row, start, chunk)
        x = _difference(z, v, z_top, v_top, beta)
        p = _exp((v - v_top) * beta)
        ties += tl.sum(tl.where(v == v_top, 1.0, 0.0), 0)
        others += tl.sum(tl.where(v == v_top, 0.0, p), 0)
        z_total += tl.sum(_exp((z - z_max) * beta), 0)
        mean += tl.sum(tl.where(p > 0, p * x, 0.0), 0)
        clipped += _clipped_sum(p, x, beta)
        least, most = tl.minimum(least, tl.min(x, 0)), tl.maximum(most, tl.max(x, 0))
    total = ties + others
    mean /= total
    z_level, center = z_top, mean
    if total >= 2:
        z_level, center = (z_top + mean).to(tl.float32), tl.full((), 0, tl.float64)
    if not ((most - mean) * beta <= FAR and (least - mean) * beta >= -FAR):
        z_level, center = z_top, clipped / total
        if tl.abs(center) * beta > CLIP / 2 or (z_max - z_top) * beta > CLIP:
            z_level = (z_max + tl.log(z_total / total) / beta).to(tl.float32)
            center = _clipped_mean(row, z_level, v_top, total, beta, chunk)
    return (z_level, v_top, center.to(tl.float32)), total


@triton.jit
def _clipped_mean(row, z_level, v_top, total, beta, chunk: tl.constexpr):
    clipped = tl.full((), 0, tl.float64)
    for start in range(0, row[2], chunk):
        _, z, v = _load(row, start, chunk)
        x = _difference(z, v, z_level, v_top, beta)
        clipped += _clipped_sum(_exp((v - v_top) * beta), x, beta)
    return clipped / total


@triton.jit
def _clipped_sum(p, x, beta):
    bound = CLIP / beta
    return tl.sum(p * tl.minimum(tl.maximum(x, -bound), bound), 0)


@triton.jit
def _terms(z, v, level, beta, unit):
    """Return p, unit·p (eᵈ − 1), unit²·p φ(d) and unit·p d, as `terms` of `_formulas.py`."""
    z_level, v_top, center = level
    x = _difference(z, v, z_level, v_top, beta) - center
    d = x * beta
    x *= unit * beta
    p = _exp((v - v_top) * beta)
    q = _exp(((z - z_level) - center) * beta)
    p_x = tl.where(x == -INF, x, tl.where(p > 0, p * x, 0.0))
    h = 0.5 - d * (G_0 + d * d * (G_1 + d * d * G_2))
    near, wide = tl.div_rn(p * x, 1 - d * h), unit * (q - p)
    is_near = tl.abs(d) <= REACH
    p_phi = tl.where(is_near, near * (h * x), unit * (wide - p_x))
    return p, tl.where(is_near, near, wide), p_phi, p_x


@triton.jit
def _sums(row, level, beta, unit, chunk: tl.constexpr):
    """Return the sums of unit·p (eᵈ − 1), unit²·p φ(d) and unit·p d."""
    m = tl.full((), 0, tl.float64)
    s, t = m, m
    for start in range(0, row[2], chunk):
        _, z, v = _load(row, start, chunk)
        _, p_expm1, p_phi, p_x = _terms(z, v, level, beta, unit)
        m, s, t = m + tl.sum(p_expm1, 0), s + tl.sum(p_phi, 0), t + tl.sum(p_x, 0)
    return m, s, t


@triton.jit
def _loss(m, s, t, unit):
    """Return unit²·KL from unit·M, unit²·S and unit·Σ p d, as `_loss` of `_formulas.py`."""
    plain_m = m / unit
    log1p = tl.log(1 + plain_m)
    ratio = (plain_m - log1p) / (plain_m * plain_m)
    ratio = tl.where(tl.abs(plain_m) < 1e-4, 0.5 - plain_m * (1 / 3 - plain_m / 4), ratio)
    loss = tl.where(s == INF, s, s - ratio * m * m)
    loss = tl.where(plain_m > 1, (log1p * unit - t) * unit, loss)
    return tl.where(loss <= 0, 0.0, loss)
