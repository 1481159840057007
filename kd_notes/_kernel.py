"""The soft loss of distillation and its gradient: row by row, without cancellation.

For one row of student logits z and teacher logits v, at inverse temperature β = 1/τ,

    p = softmax(βv),   q = softmax(βz),   KL = Σ p log(p/q),   ∂KL/∂z = β(q − p).

Because p and q both sum to one, the divergence is a sum without a negative term:

    KL = Σ p φ(log(q/p)),   φ(x) = eˣ − 1 − x ≥ 0.

`_apart` sums it so, from the two softmaxes. Where q comes near p, even φ is the small
difference of larger numbers; there `_near` sums φ's series, in differences of logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kd_notes._checks import FloatArray

BLOCK = 2**19  # bytes of one array of a block of rows; about six are at work at a time
FEW = 64  # up to so many classes a block is stored class by class: longer inner loops

REACH = 0.5  # how far from 0 the series for φ serves
NEAR = REACH**2 / 8  # KL ≤ range(log(q/p))²/8 (Hoeffding): what spans REACH is near

# ½x coth ½x = 1 + x²/12 − x⁴/720 + …, with B₂ₙ/(2n)! in Bernoulli's numbers B₂ₙ.
COTH = [1 / 12, -1 / 720, 1 / 30240, -1 / 1209600, 1 / 47900160]
COTH += [-691 / 1307674368000, 1 / 74724249600]
TERMS = {"float32": 3, "float64": 7}  # full precision up to REACH


def soft_loss_and_grad(
    student: FloatArray,
    teacher: FloatArray,
    temperature: float,
    *,
    scaled: bool,
    loss: FloatArray | None = None,
    grad: FloatArray | None = None,
) -> None:
    """Fill `loss` with KL(p, q) at a temperature, and `grad` with its gradient.

    Parameters
    ----------
    student, teacher
        `(..., K)`, of one shape, in any float dtype and memory layout; `-inf` excludes a
        class.
    temperature
        Greater than 0, `inf` allowed.
    scaled
        Whether both results are multiplied by temperature squared.
    loss, grad
        `(...)` and `(..., K)`, where to put the results, in nats. What is not asked for
        is not computed.

    Notes
    -----
    Extra memory is a few blocks, whatever the batch. The result of a row depends on that
    row alone, to the bit.

    At infinite temperature the scaled loss is half the variance of z − v, the plain one 0.
    If student and teacher exclude different classes, KL does not vanish there: the scaled
    loss is `inf`, and its gradient q − p times a huge but finite number.
    """
    dtype = np.result_type(np.float32, student, teacher)
    # Not quite 0 at infinity, so that -inf β is -inf; yet too small to be seen beside 1.
    beta = max(1 / temperature, float(np.finfo(dtype).tiny) ** 0.8)
    unit = 1 / beta if scaled else 1.0
    near = NEAR if temperature < np.inf else 1e-7
    step = max(1, BLOCK // (student.shape[-1] * dtype.itemsize))
    (student, teacher, loss, grad), blocks = _in_blocks(student, teacher, loss, grad, step)
    with np.errstate(all="ignore"):
        for rows in blocks:
            z, v = _stored(student[rows], dtype), _stored(teacher[rows], dtype)
            kl, slope = _block(z, v, beta, unit, near, grad is not None)
            if loss is not None:
                loss[rows] = kl[:, 0]
            if grad is not None:
                grad[rows] = slope if scaled else slope * (1 / temperature)


def _in_blocks(
    student: FloatArray,
    teacher: FloatArray,
    loss: FloatArray | None,
    grad: FloatArray | None,
    step: int,
) -> tuple[list[Any], Iterator[Any]]:
    """Return the arrays with one axis of rows, and the index of each block of rows.

    Where that would take a copy, the arrays stay as they are, and an index has as many
    axes as the batch.
    """
    *batch, classes = student.shape
    rows = math.prod(batch)
    starts = range(0, rows, step)
    shapes = (rows, classes), (rows, classes), (rows,), (rows, classes)
    arrays = student, teacher, loss, grad
    try:
        views = [
            array if array is None else array.reshape(shape, copy=False)
            for array, shape in zip(arrays, shapes, strict=True)
        ]
    except ValueError:
        ranges = (np.arange(start, min(start + step, rows)) for start in starts)
        return list(arrays), (np.unravel_index(block, batch) for block in ranges)
    return views, (slice(start, start + step) for start in starts)


def _stored(rows: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    return np.asarray(rows, dtype, order="F" if rows.shape[1] <= FEW else "C")


def _max(rows: FloatArray) -> FloatArray:
    return np.maximum.reduce(rows, axis=1, keepdims=True)


def _sum(rows: FloatArray) -> FloatArray:
    """Add up each row, in an order that does not depend on the rows beside it."""
    classes = rows.shape[1]
    if 32 < classes <= FEW:  # one after the other, so many would lose the small ones
        return _sum(rows[:, : classes // 2]) + _sum(rows[:, classes // 2 :])
    if len(rows) == 1 and classes <= 32:  # a lone row would be added in pairs
        return np.add.accumulate(rows, axis=1)[:, -1:]
    return np.add.reduce(rows, axis=1, keepdims=True)


def _block(
    z: FloatArray, v: FloatArray, beta: float, unit: float, near: float, want_grad: bool
) -> tuple[FloatArray, FloatArray]:
    """Return unit²·KL, `(n, 1)`, and unit·(q − p), `(n, K)`, of n rows."""
    a, b = z - _max(z), v - _max(v)
    a *= beta
    b *= beta
    x = a - b
    if _spans_little(x[:1]) and _spans_little(x):  # one row saves most blocks the question
        return _near(z, v, beta, unit, want_grad)
    kl, slope = _apart(a, b, x, unit, want_grad)
    loss = kl * (unit * unit)
    i = np.flatnonzero(kl < near)
    if i.size:
        z, v = _stored(z[i], z.dtype), _stored(v[i], v.dtype)
        loss[i], near_slope = _near(z, v, beta, unit, want_grad)
        if want_grad:
            slope[i] = near_slope
    return loss, slope


def _spans_little(x: FloatArray) -> bool:
    return bool((_max(x) + _max(-x) <= REACH).all())


def _apart(
    a: FloatArray, b: FloatArray, x: FloatArray, unit: float, want_grad: bool
) -> tuple[FloatArray, FloatArray]:
    """Return KL and unit·(q − p) from a = log q, b = log p and x = a − b.

    Both logarithms may be off by a constant. With Z = Σ eᵇ and r = Z / Σ eᵃ,
    log(q/p) = x + log r  and  Z (q − p) = r eᵃ − eᵇ,  so
    Z p φ(log(q/p)) = (r eᵃ − eᵇ) − eᵇ (x + log r).  All is done in place.
    """
    excluded = None if np.isfinite(x).all() else b == -np.inf
    q, p = np.exp(a, out=a), np.exp(b, out=b)
    if excluded is not None:
        x[excluded] = 0  # 0 log 0 = 0
        p[x == -np.inf] += np.finfo(p.dtype).tiny  # not 0 even if it underflowed
    total = _sum(p)
    ratio = total / _sum(q)
    q *= ratio
    q -= p
    x += np.log(ratio)
    x *= p
    kl = _sum(np.subtract(q, x, out=x)) / total
    if want_grad:
        _balance(q, p, total)
        q *= unit / total
    return kl, q


def _near(
    z: FloatArray, v: FloatArray, beta: float, unit: float, want_grad: bool
) -> tuple[FloatArray, FloatArray]:
    """Return unit²·KL and unit·(q − p) where KL is small.

    They come from d = log(q/p) minus its mean. As Σ p d = 0,
    KL = log Σ p eᵈ = log(1 + S)  with  S = Σ p φ(d),  and  q = p eᵈ / (1 + S),
    so  q − p = p (eᵈ − 1 − S) / (1 + S).  The unit goes with d before it is squared:
    x = unit·d is a difference of logits, which no temperature makes underflow.
    """
    # Measured from the teacher's top class: if p is nearly 1, the mean is a small sum.
    top = v.argmax(axis=1)[:, np.newaxis]
    z = z - np.take_along_axis(z, top, axis=1)
    v = v - np.take_along_axis(v, top, axis=1)
    p = np.exp(v * beta)
    total = _sum(p)
    excluded = v == -np.inf
    x = np.where(excluded, 0, z - v)
    mean = _sum(p * x) / total
    x -= mean
    d = x * beta
    x = d if unit == 1 else x
    rise, bend = _rise_and_bend(p, d, x)
    wide = (np.abs(d) > REACH) | excluded
    if wide.any():  # p eᵈ as one exponential: p may underflow, or eᵈ overflow
        far = unit * (np.exp((z - mean) * beta) - p)
        np.copyto(rise, far, where=wide)
        np.copyto(bend, unit * (far - p * x), where=wide)
    t = _sum(bend) / total
    s = t / unit / unit
    loss = t * np.divide(np.log1p(s), s, out=np.ones_like(s), where=s > 0)
    if want_grad:
        rise -= p * (t / unit)
        _balance(rise, p, total)
        rise /= (1 + s) * total
    return loss, rise


def _rise_and_bend(p: FloatArray, d: FloatArray, x: FloatArray) -> tuple[FloatArray, FloatArray]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d), with x = unit·d, by φ's series."""
    px = p * x
    bend = px * _phi_over_square(d)
    rise = bend * d
    rise += px
    bend *= x
    return rise, bend


def _phi_over_square(x: FloatArray) -> FloatArray:
    """Return φ(x)/x² up to REACH:  h / (1 − xh)  with  h = ½ − (½x coth ½x − 1)/x.

    For  x / (eˣ − 1) = ½x coth ½x − ½x = 1 − xh,  and so  eˣ − 1 = x / (1 − xh).
    """
    square = x * x
    *coefficients, last = COTH[: TERMS[x.dtype.name]]
    h = np.full_like(x, last)
    for c in reversed(coefficients):
        h *= square
        h += c
    h *= x
    np.subtract(0.5, h, out=h)
    x = x * h
    np.subtract(1, x, out=x)
    h /= x
    return h


def _balance(slope: FloatArray, p: FloatArray, total: FloatArray) -> None:
    """Make Σ slope = 0 where the teacher holds one class likelier than all the others.

    The slope of that class is minus the sum of the others', and may be far smaller than
    the q and p whose difference it is.
    """
    i = np.flatnonzero(total < 2)  # p, not yet divided by its total, is 1 at the top
    if i.size:
        slope[i, p[i].argmax(axis=1)] -= _sum(slope)[i, 0]
