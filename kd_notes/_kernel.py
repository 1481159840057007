"""The NumPy driver of the formulas: blocks of rows, their storage, and a quicker way.

`loss_and_slope` in `_formulas.py` is right for every row. `_quick` is right where p and q
differ, which two exponentials without a series suffice for. Which of the two a row's
result comes from depends on that row alone; which is tried first on a block, on the block
before it.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

import numpy as np

from kd_notes._checks import FloatArray
from kd_notes._formulas import inverse_temperature, loss_and_slope

BLOCK = 2**19  # bytes of one array of a block of rows; about six are at work at a time
FEW = 64  # up to so many classes a block is stored class by class: longer inner loops
BUFFER = 1024  # at most a row: into a longer one NumPy copies a row's number once a class

# `_quick` is used where KL and the largest |q − p| are at least this: it divides by KL the
# rounding of the exponentials, in the worst of rows two eps, with NumPy's of float32 five.
LEAST_KL = {"float32": 1 / 6, "float64": 1 / 14}
LEAST_SLOPE = 1 / 8  # of the largest p

# An array of this size, freed at once, makes glibc keep freed memory of up to this size for
# the next array, instead of returning it to the system and clearing it anew each time.
np.empty(8 * BLOCK, np.uint8)


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
    beta = inverse_temperature(temperature, tiny, huge)
    block = _Block(beta, scaled, dtype)
    step = max(1, BLOCK // (student.shape[-1] * dtype.itemsize))
    (student, teacher, loss, grad), blocks = _in_blocks(student, teacher, loss, grad, step)
    with np.errstate(all="ignore"):
        np.setbufsize(BUFFER)  # until errstate ends
        for rows in blocks:
            z, v = _stored(student[rows], dtype), _stored(teacher[rows], dtype)
            block_loss, slope = block(z, v)
            if loss is not None:
                loss[rows] = block_loss[:, 0]
            if grad is not None:
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


def _stored(rows: FloatArray, dtype: np.dtype[Any]) -> FloatArray:
    return np.asarray(rows, dtype, order="F" if rows.shape[1] <= FEW else "C")


def _rows(block: FloatArray, i: FloatArray) -> FloatArray:
    return _stored(block[i], block.dtype)


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


class _Block:
    """Loss and slope of one block after the other."""

    def __init__(self, beta: float, scaled: bool, dtype: np.dtype[Any]) -> None:
        self.beta, self.scaled = beta, scaled
        self.unit = 1 / beta if scaled else 1.0
        self.least_kl = LEAST_KL[dtype.name]
        self.mostly_close: bool | None = None  # of the rows of the last block

    def __call__(self, z: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        """Return unit²·KL and unit·(q − p)."""
        if self.mostly_close is None:
            self._quick_first(z[:16], v[:16])
        return (self._sure_first if self.mostly_close else self._quick_first)(z, v)

    def _quick_first(self, z: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        kl, slope, largest = _quick(z, v, self.beta)
        loss = kl * self.unit * self.unit
        slope *= self.unit
        close = np.flatnonzero((kl < self.least_kl) | (largest < LEAST_SLOPE))
        self.mostly_close = 2 * close.size > len(z)
        if close.size:
            loss[close], slope[close] = self._sure(_rows(z, close), _rows(v, close))
        return loss, slope

    def _sure_first(self, z: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        loss, slope = self._sure(z, v)
        kl = loss / self.unit / self.unit
        # A row with a KL of nearly the least: `_quick` itself decides.
        rest = np.flatnonzero(~(kl < 0.999 * self.least_kl))
        if rest.size:
            loss[rest], slope[rest] = self._quick_first(_rows(z, rest), _rows(v, rest))
        self.mostly_close = 2 * rest.size < len(z)
        return loss, slope

    def _sure(self, z: FloatArray, v: FloatArray) -> tuple[FloatArray, FloatArray]:
        return loss_and_slope(_Operations, z, v, self.beta, self.scaled)


def _quick(z: FloatArray, v: FloatArray, beta: float) -> tuple[FloatArray, ...]:
    """Return KL, q − p, and the largest |q − p| relative to the largest p, of n rows.

    With a = log q and b = log p, both up to a constant, and  r = Σ eᵇ / Σ eᵃ,
    q − p = (r eᵃ − eᵇ) / Σ eᵇ  and  log(q/p) = a − b + log r.  All is done in place. The
    same rounded log r serves both, so that its error enters KL to second order only.
    """
    a, b = z - _max(z), v - _max(v)
    a *= beta
    b *= beta
    x = a - b
    excluded = None if np.isfinite(x).all() else b == -np.inf
    q, p = np.exp(a, out=a), np.exp(b, out=b)
    if excluded is not None:
        x[excluded] = 0  # 0 log 0 = 0
        p[x == -np.inf] += np.finfo(p.dtype).tiny  # not 0, even if it underflowed
    total = _sum(p)
    log_r = np.log(total / _sum(q))
    q *= np.exp(log_r)
    q -= p
    x += log_r
    x *= p
    kl = _sum(np.subtract(q, x, out=x)) / total
    largest = _largest(q, log_r)
    q /= total
    return kl, q, largest


def _largest(slope: FloatArray, log_r: FloatArray) -> FloatArray:
    """Return the largest |slope| of each row, or what it exceeds if that suffices."""
    if slope.shape[1] <= FEW:
        return _max(np.abs(slope))
    # For the largest q and p, q − p is at least (r − 1) p.
    largest = np.abs(np.expm1(log_r))
    unsure = np.flatnonzero(largest < LEAST_SLOPE)
    largest[unsure] = _max(np.abs(slope[unsure]))
    return largest


class _Selection:
    def __init__(self, condition: FloatArray) -> None:
        rows, classes = condition.shape
        self.where = np.flatnonzero(_flat(condition))
        by_class = classes <= FEW
        self.rows = self.where % rows if by_class else self.where // classes

    def take(self, rows: FloatArray) -> FloatArray:
        return _flat(rows)[self.where]

    def put(self, rows: FloatArray, values: FloatArray) -> FloatArray:
        _flat(rows)[self.where] = values
        return rows


def _flat(rows: FloatArray) -> FloatArray:
    """Return all entries of a block, in the order in which they are stored, without a copy."""
    return rows.reshape(-1, order="A", copy=False)


class _Operations:
    """The operations of `_formulas.py` in NumPy."""

    exp, log, log1p, where, clip = np.exp, np.log, np.log1p, np.where, np.clip
    row_sum, row_max = staticmethod(_sum), staticmethod(_max)
    select = _Selection

    @staticmethod
    def exp_(x: FloatArray) -> FloatArray:
        return np.exp(x, out=x)

    @staticmethod
    def at_top(v: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        if v.shape[1] > FEW:
            top = v.argmax(axis=1, keepdims=True)
            return np.take_along_axis(v, top, 1), np.take_along_axis(z, top, 1)
        v_top = _max(v)
        at_top = _Selection(v == v_top)  # in a row with nan nothing is
        z_top = np.full_like(v_top, np.nan)
        z_top[at_top.rows, 0] = at_top.take(z)
        return v_top, z_top

    @staticmethod
    def dtype_name(x: FloatArray) -> str:
        return x.dtype.name

    @staticmethod
    def tiny(x: FloatArray) -> float:
        return float(np.finfo(x.dtype).tiny)

    @staticmethod
    def any(condition: FloatArray) -> bool:
        return bool(condition.any())

    @staticmethod
    def all_within(x: FloatArray, bound: float) -> bool:
        return bool(max(x.max(), -x.min()) <= bound)
