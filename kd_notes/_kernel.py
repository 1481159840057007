"""The soft loss of distillation and its gradient: row by row, without cancellation.

For one row of student logits z and teacher logits v, at inverse temperature β = 1/τ,

    p = softmax(βv),   q = softmax(βz),   KL = Σ p log(p/q),   ∂KL/∂z = β(q − p).

Because p and q both sum to one, the divergence is a sum without a negative term:

    KL = Σ p φ(log(q/p)),   φ(x) = eˣ − 1 − x ≥ 0.

`_apart` sums it so, from the two softmaxes. Where q comes near p, even φ is the small
difference of larger numbers; there `_near` sums φ's series, in differences of logits.

`torch.py` does the same in PyTorch's operations: what changes here changes there.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kd_notes._checks import FloatArray

BLOCK = 2**19  # bytes of one array of a block of rows; about six are at work at a time
FEW = 64  # up to so many classes a block is stored class by class: longer inner loops
BUFFER = 1024  # at most a row: into a longer one NumPy copies a row's number once a class

REACH = 0.5  # how far from 0 the series for φ serves
# The least KL for `_apart`, which divides by it what the exponentials are off by: in the
# worst of rows two eps, with NumPy's of float32 five.
NEAR = {"float32": 1 / 6, "float64": 1 / 14}

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
        `(...)` and `(..., K)`, where to put the results. What is not asked for is not
        computed.

    Notes
    -----
    Extra memory is a few blocks, whatever the batch. The result of a row depends on that
    row alone, to the bit.

    At infinite temperature the scaled loss is half the variance of z − v, the plain one 0.
    If student and teacher exclude different classes, KL does not vanish there: the scaled
    loss is `inf`, and its gradient q − p times a huge but finite number.
    """
    dtype = np.result_type(np.float32, student, teacher)
    tiny, huge = float(np.finfo(dtype).tiny), float(np.finfo(dtype).max)
    # Not quite 0 at infinity, so that -inf β is -inf; yet too small to be seen beside 1.
    beta = min(max(1 / temperature, tiny**0.8), huge)  # nor infinite: 0 β is 0
    unit = 1 / beta if scaled else 1.0
    # Where unit² overflows, only what agrees to rounding is near: `_near` would make nan of
    # the KL that a class leaves which the teacher alone excludes.
    near = NEAR[dtype.name] if unit * unit < huge else 1e-7
    step = max(1, BLOCK // (student.shape[-1] * dtype.itemsize))
    (student, teacher, loss, grad), blocks = _in_blocks(student, teacher, loss, grad, step)
    with np.errstate(all="ignore"):
        np.setbufsize(BUFFER)  # until errstate ends
        for rows in blocks:
            z, v = _stored(student[rows], dtype), _stored(teacher[rows], dtype)
            slope = _place(grad, rows, z)
            kl = _block(z, v, beta, unit, near, slope)
            if loss is not None:
                loss[rows] = kl[:, 0]
            if grad is not None and slope is not None:  # NumPy copies nothing onto itself
                grad[rows] = slope if scaled else slope * min(1 / temperature, huge)


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


def _place(grad: FloatArray | None, rows: Any, z: FloatArray) -> FloatArray | None:
    """Return where to compute the gradient of a block: in `grad`, if it is stored like z."""
    if grad is None:
        return None
    return grad[rows] if z.flags.c_contiguous and grad.dtype == z.dtype else np.empty_like(z)


def _stored(rows: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    return np.asarray(rows, dtype, order="F" if rows.shape[1] <= FEW else "C")


def _max(rows: FloatArray) -> FloatArray:
    return _reduce(np.maximum, rows)


def _reduce(by: np.ufunc, rows: FloatArray) -> FloatArray:
    results: FloatArray
    if rows.shape[1] > FEW:  # as `reduce` below, but quicker from row to row
        results = by.reduceat(rows, [0], axis=1)
    else:
        results = by.reduce(rows, axis=1, keepdims=True)
    return results


def _sum(rows: FloatArray) -> FloatArray:
    """Add up each row, in an order that does not depend on the rows beside it."""
    classes = rows.shape[1]
    if classes > FEW:
        return np.add.reduceat(rows, [0], axis=1)
    if classes > 10:  # one after the other, many would lose the small ones
        return _sum(rows[:, : classes // 2]) + _sum(rows[:, classes // 2 :])
    if len(rows) == 1:  # a lone row would be added in pairs
        return np.add.accumulate(rows, axis=1)[:, -1:]
    return np.add.reduce(rows, axis=1, keepdims=True)


def _block(
    z: FloatArray,
    v: FloatArray,
    beta: float,
    unit: float,
    near: float,
    slope: FloatArray | None,
) -> FloatArray:
    """Return unit²·KL of n rows, `(n, 1)`.

    Into `slope`, if it is given, goes unit·(q − p), `(n, K)`.
    """
    part = slice(1), slice(FEW)  # which decides for most blocks
    if _spans_little(z[part], v[part], beta) and _spans_little(z, v, beta):
        return _near(z, v, beta, unit, slope)
    a, b = z - _max(z), v - _max(v)
    a *= beta
    b *= beta
    kl = _apart(a, b, a - b, unit, slope)
    loss = kl * unit * unit
    i = np.flatnonzero(kl < near)
    if i.size:
        z, v = _stored(z[i], z.dtype), _stored(v[i], v.dtype)
        near_slope = None if slope is None else np.empty_like(z)
        loss[i] = _near(z, v, beta, unit, near_slope)
        if slope is not None:
            slope[i] = near_slope
    return loss


def _spans_little(z: FloatArray, v: FloatArray, beta: float) -> bool:
    """Whether log(q/p) spans at most REACH in each row; then KL ≤ REACH²/8 (Hoeffding)."""
    x = z - v
    span = _max(x) - _reduce(np.minimum, x)
    return bool((span * beta <= REACH).all())


def _apart(
    a: FloatArray,
    b: FloatArray,
    x: FloatArray,
    unit: float,
    slope: FloatArray | None,
) -> FloatArray:
    """Return KL, and put unit·(q − p) into `slope`.

    They come from a = log q, b = log p and x = a − b, where either logarithm
    may be off by a constant. With  Z = Σ eᵇ  and  r = Z / Σ eᵃ,
    log(q/p) = x + log r  and  Z (q − p) = r eᵃ − eᵇ,  so
    Z p φ(log(q/p)) = (r eᵃ − eᵇ) − eᵇ (x + log r).  All is done in place.
    One rounded log r serves both places: what it is off by enters squared.
    """
    excluded = None if np.isfinite(x).all() else b == -np.inf
    q, p = np.exp(a, out=a), np.exp(b, out=b)
    if excluded is not None:
        x[excluded] = 0  # 0 log 0 = 0
        # Where only q is 0, p is not, even if it underflowed.
        p[x == -np.inf] += np.finfo(p.dtype).tiny
    total = _sum(p)
    log_r = np.log(total / _sum(q))
    q *= np.exp(log_r)
    q -= p
    x += log_r
    x *= p
    kl = _sum(np.subtract(q, x, out=x)) / total
    if slope is not None:
        _balance(q, p, total)
        np.multiply(q, unit / total, out=slope)
    return kl


def _near(
    z: FloatArray,
    v: FloatArray,
    beta: float,
    unit: float,
    slope: FloatArray | None,
) -> FloatArray:
    """Return unit²·KL where KL is small, and put unit·(q − p) into `slope`.

    They come from d = log(q/p) minus its mean. As Σ p d = 0,
    KL = log Σ p eᵈ = log(1 + S)  with  S = Σ p φ(d),  and
    q = p eᵈ / (1 + S),  so  q − p = p (eᵈ − 1 − S) / (1 + S).
    The unit goes with d before it is squared: x = unit·d is a difference of
    logits, which no temperature makes underflow.
    """
    highest = _max(v)
    p = np.exp((v - highest) * beta)
    total = _sum(p)
    x: FloatArray = z - v
    excluding = not np.isfinite(x).all()
    if excluding:
        x[v == -np.inf] = 0
    x, center = _centered(x, p, total, beta)
    d = x * beta
    x = d if unit == 1 else x
    rise, bend = _rise_and_bend(p, d, x)
    if excluding or max(d.max(), -d.min()) > REACH:
        # p eᵈ as one exponential: p may underflow, or eᵈ overflow
        far = unit * (np.exp((z - highest - center) * beta) - p)
        wide = (np.abs(d) > REACH) | (v == -np.inf)
        np.copyto(rise, far, where=wide)
        np.copyto(bend, unit * (far - p * x), where=wide)
    t = _sum(bend) / total
    s = t / unit / unit
    loss = t * np.divide(np.log1p(s), s, out=np.ones_like(s), where=s > 0)
    if slope is not None:
        rise -= p * (t / unit)
        _balance(rise, p, total)
        np.divide(rise, (1 + s) * total, out=slope)
    return loss


def _centered(
    x: FloatArray,
    p: FloatArray,
    total: FloatArray,
    beta: float,
) -> tuple[FloatArray, FloatArray]:
    """Return x less its mean under p, and that mean."""
    # From the top class, where p is 1, what the others add is a small sum.
    origin = _max(np.where(p == 1, x, -np.inf))
    centered = x - origin
    mean = _sum(p * centered) / total
    centered -= mean
    mean += origin
    i = np.flatnonzero(np.abs(mean - origin) * beta > 1)
    if i.size:  # the top is far from the rest, and they were rounded alike
        again = _stored(x[i] - mean[i], x.dtype)
        rest = _sum(_stored(p[i] * again, x.dtype)) / total[i]
        centered[i] = again - rest
        mean[i] += rest
    return centered, mean


def _rise_and_bend(
    p: FloatArray,
    d: FloatArray,
    x: FloatArray,
) -> tuple[FloatArray, FloatArray]:
    """Return unit·p (eᵈ − 1) and unit²·p φ(d), where x = unit·d."""
    px = p * x
    bend = px * _phi_over_square(d)
    rise = bend * d
    rise += px
    bend *= x
    return rise, bend


def _phi_over_square(x: FloatArray) -> FloatArray:
    """Return φ(x)/x² up to REACH, as  h / (1 − xh).

    Here  h = ½ − (½x coth ½x − 1)/x.  So  x / (eˣ − 1) = ½x coth ½x − ½x
    = 1 − xh,  and  eˣ − 1 = x / (1 − xh).
    """
    square = x * x
    h: Any
    *coefficients, h = COTH[: TERMS[x.dtype.name]]
    for c in reversed(coefficients):
        h = h * square
        h += c
    h *= x
    np.subtract(0.5, h, out=h)
    x = x * h
    np.subtract(1, x, out=x)
    np.divide(h, x, out=x)
    return x


def _balance(slope: FloatArray, p: FloatArray, total: FloatArray) -> None:
    """Make Σ slope = 0 where the teacher has one class likelier than all others.

    The slope of that class is minus the sum of the others', and may be far
    smaller than the q and p whose difference it is.
    """
    i = np.flatnonzero(total < 2)  # at the top p, not yet divided by its total, is 1
    if i.size:
        top = p[i].argmax(axis=1)
        slope[i, top] -= _sum(_stored(slope[i], slope.dtype))[:, 0]
