"""The NumPy driver of the formulas: blocks of rows, their storage, and a quicker formula.

`loss_and_slope` in `_formulas.py` is accurate for every row. `_quick` is accurate where p and
q differ, and needs two exponentials and no series. Which of the two a row's result comes
from depends on that row alone; which is tried first on a block depends on the block before.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from types import ModuleType
from typing import Any, Literal, TypeAlias, cast

import numpy as np
from numpy.typing import NDArray

from kd_notes._checks import FloatArray
from kd_notes._engine import compiled_loops, in_parts
from kd_notes._f_divergences import FORWARD, Formula, divergence_and_slope
from kd_notes._formulas import (
    Operations,
    at_own_temperature,
    inverse_temperature,
    loss_and_slope,
)

BLOCK = 2**19  # bytes of one array of a block of rows; about six are at work at a time
IN_PLACE = 2**22  # the same for compiled loops, where they need no copy of the rows
FEW = 64  # up to so many classes a block is stored class by class: longer inner loops
GROUPED = 200  # up to so many classes the compiled loops take many rows at once, else one
BUFFER = 1024  # at most one row: into a longer buffer NumPy copies a row's scalar once per class

# `_quick` is used where KL, and the largest |q − p| relative to the largest p, are at least
# this. Its error is the rounding of the exponentials, at most two eps, in float32 five, and of
# the normalizers, divided by either. The second numbers are for more than FEW classes. Compiled
# loops take those of float64: their exponentials are as exact in float32.
LEAST_KL = {"float32": (1 / 5, 1 / 3), "float64": (1 / 12, 1 / 3)}
LEAST_SLOPE = (0.4, 0.25)

Order: TypeAlias = Literal["C", "F"]  # row by row, or class by class
Rows: TypeAlias = "slice | NDArray[np.intp]"  # which rows of a batch

# An array of this size, freed at once, makes glibc keep freed memory of up to this size for
# the next array, instead of returning it to the system and clearing it anew each time.
np.empty(8 * BLOCK, np.uint8)


def soft_loss_and_grad(
    student: FloatArray,
    teacher: FloatArray,
    temperature: float,
    *,
    scaled: bool,
    formula: Formula = FORWARD,
    teacher_factor: float = 1.0,
    loss: FloatArray | None = None,
    grad: FloatArray | None = None,
) -> None:
    """Fill `loss` with a divergence of p and q at a temperature, and `grad` with its gradient.

    Parameters
    ----------
    student, teacher
        `(..., K)`, of one shape, in any float dtype and memory layout; `-inf` excludes a
        class.
    temperature
        Greater than 0, `inf` allowed.
    scaled
        Whether both results are multiplied by temperature squared.
    formula
        The divergence: KL(p, q), if not given.
    teacher_factor
        What the teacher's logits are multiplied by.
    loss, grad
        `(...)` and `(..., K)`, where to store the results; None stores nothing.

    Notes
    -----
    Extra memory is a few blocks, whatever the batch. The result of a row depends on that
    row alone, to the bit.

    At infinite temperature the scaled loss is half the variance of z − v, the plain one 0.
    If student and teacher exclude different classes, KL does not vanish there: the scaled
    loss is `inf`, and its gradient q − p times a huge but finite number.
    """
    dtype = np.result_type(np.float32, student, teacher)
    batch = _Batch(student, teacher, loss, grad, dtype, teacher_factor)
    loops = compiled_loops(formula == FORWARD)  # imported before threads begin

    def compute(rows: slice) -> None:
        with np.errstate(all="ignore"):
            np.setbufsize(BUFFER)  # until errstate ends
            _Computation(batch, temperature, scaled, rows).run(formula, loops)

    in_parts(compute, batch.rows, batch.classes)


class _Batch:
    """The rows of a batch, read and written block by block, without a copy of the whole."""

    def __init__(
        self,
        student: FloatArray,
        teacher: FloatArray,
        loss: FloatArray | None,
        grad: FloatArray | None,
        dtype: np.dtype[Any],
        teacher_factor: float,
    ) -> None:
        self.teacher_factor = teacher_factor
        *self.shape, self.classes = student.shape
        self.dtype, self.rows = dtype, math.prod(self.shape)
        shapes = [(self.rows, self.classes)] * 2 + [(self.rows,), (self.rows, self.classes)]
        self.arrays: list[Any] = [student, teacher, loss, grad]
        self.is_matrix = True
        try:
            self.arrays = [
                x if x is None else x.reshape(shape, copy=False)
                for x, shape in zip(self.arrays, shapes, strict=True)
            ]
        except ValueError:  # it would take a copy
            self.is_matrix = False

    def load(self, rows: Rows, order: Order | None = None) -> tuple[FloatArray, FloatArray]:
        """Return the student's and the teacher's logits, `(n, K)`."""
        index = self._index(rows)
        order = order or ("F" if self.classes <= FEW else "C")
        student, teacher = (np.asarray(x[index], self.dtype, order) for x in self.arrays[:2])
        if self.teacher_factor != 1:
            teacher = at_own_temperature(OPERATIONS, teacher, self.teacher_factor)
        return student, teacher

    def is_read_in_place(self) -> bool:
        """Whether `load` copies nothing if it is asked for rows one after the other."""
        return (
            self.is_matrix
            and self.teacher_factor == 1
            and all(x.dtype == self.dtype and x.flags.c_contiguous for x in self.arrays[:2])
        )

    def store(
        self, rows: Rows, losses: FloatArray, slopes: FloatArray, factors: FloatArray | float
    ) -> None:
        """Store the losses `(n, 1)`, and the gradients as the product of two arrays."""
        index, (loss, grad) = self._index(rows), self.arrays[2:]
        if loss is not None:
            loss[index] = losses[:, 0]
        if grad is not None and isinstance(index, slice) and slopes.flags.c_contiguous:
            np.multiply(slopes, factors, out=grad[index], casting="same_kind")
        elif grad is not None:
            slopes *= factors
            grad[index] = slopes

    def place_for_grad(self, rows: slice) -> FloatArray:
        """Return where the gradients of rows can be written: their memory, if it is contiguous."""
        grad = self.arrays[3]
        if grad is None:
            return np.empty((0, self.classes), self.dtype)
        if self.is_matrix and grad.dtype == self.dtype and grad[rows].flags.carray:
            place: FloatArray = grad[rows]
            return place
        return np.empty((rows.stop - rows.start, self.classes), self.dtype)

    def store_from(self, rows: slice, losses: FloatArray, place: FloatArray) -> None:
        """Store the losses `(n,)`, and the gradients if their place is not the one they have."""
        index, (loss, grad) = self._index(rows), self.arrays[2:]
        if loss is not None:
            loss[index] = losses
        if grad is not None and not np.may_share_memory(place, grad):
            grad[index] = place

    def _index(self, rows: Rows) -> Any:
        return rows if self.is_matrix else np.unravel_index(_numbers(rows), self.shape)


class _Computation:
    """Each block by the formula that served most rows of the last one, then the other rows.

    The result of a row is that of `_quick` where this meets the thresholds above, and else
    that of `loss_and_slope`, in whatever order they were tried and with whatever rows beside.
    """

    def __init__(self, batch: _Batch, temperature: float, scaled: bool, rows: slice) -> None:
        info = np.finfo(batch.dtype)
        self.beta = inverse_temperature(temperature, float(info.tiny), float(info.max))
        self.scaled, self.unit = scaled, 1 / self.beta if scaled and self.beta else 1.0
        self.grad_factor = 1.0 if scaled else min(1 / temperature, float(info.max))
        self.batch, self.rows = batch, rows
        self.step = self._step(BLOCK)
        self.least_kl = LEAST_KL[batch.dtype.name][batch.classes > FEW]
        self.least_slope = LEAST_SLOPE[batch.classes > FEW]
        self.for_accurate: list[NDArray[np.intp]] = []  # rows that `_quick` does not serve
        self.for_quick: list[NDArray[np.intp]] = []  # rows that `_quick` may serve

    def run(self, formula: Formula, loops: ModuleType | None) -> None:
        if self.rows.start == self.rows.stop:
            return
        if self.beta and formula == FORWARD:
            self._run_compiled(loops) if loops else self._run_forward()
        elif self.beta and loops and loops.can_serve(formula):
            self._run_compiled_divergence(formula, loops)
        else:
            self._run_formula(formula)

    def _step(self, size: int) -> int:
        """Return how many rows of so many bytes there are."""
        of_row: int = self.batch.classes * self.batch.dtype.itemsize
        return max(1, size // of_row)

    def _blocks(self, step: int | None = None) -> Iterator[slice]:
        step = step or self.step
        for start in range(self.rows.start, self.rows.stop, step):
            yield slice(start, min(start + step, self.rows.stop))

    def _run_forward(self) -> None:
        mostly_close = self._seem_close()
        for block in self._blocks():
            left = self._accurate(block) if mostly_close else self._quick(block)
            mostly_close = (left < 0.5) if mostly_close else (left > 0.5)
            self._compute_deferred(self.step)
        self._compute_deferred(1)

    def _seem_close(self) -> bool:
        """Guess from the first row whether KL is small; it is about half this squared."""
        z, v = self.batch.load(slice(self.rows.start, self.rows.start + 1))
        x = (z - v)[0] * self.beta
        x = x[np.isfinite(x)]  # without excluded classes
        x -= x.sum() / max(1, len(x))  # and not `std`, which takes longer than a small batch
        return bool(x @ x < 0.36 * len(x))

    def _numbers(self) -> dict[str, float]:
        """Return what every row of compiled loops shares."""
        factor = 1.0 if self.scaled else self.beta
        shared = {"beta": self.beta, "unit": self.unit, "factor": factor}
        return shared | {"grad_factor": self.grad_factor}

    def _run_compiled(self, loops: Any) -> None:
        dtype = self.batch.dtype
        is_grouped = self.batch.classes <= GROUPED
        is_close = is_grouped and self._seem_close()
        space = None if is_grouped else loops.workspace(self.batch.classes, dtype)
        least_kl = LEAST_KL["float64"][self.batch.classes > FEW]
        least = {"least_kl": least_kl, "least_slope": self.least_slope}
        c = loops.numbers(dtype, **self._numbers(), **least)
        step = self._step(IN_PLACE) if self.batch.is_read_in_place() else None
        for block in self._blocks(step):
            logits = [loops.read_only(x) for x in self.batch.load(block, "C")]
            loss = np.empty(block.stop - block.start, dtype)
            grad = self.batch.place_for_grad(block)
            if is_grouped:
                is_close = loops.compute_groups(*logits, loss, grad, is_close, c)
            else:
                loops.compute_rows(*logits, loss, grad, space, c)
            self.batch.store_from(block, loss, grad)

    def _run_compiled_divergence(self, formula: Formula, loops: Any) -> None:
        """Compute ordinary rows in compiled loops, and the others by the formula."""
        classes, rows = self.batch.classes, min(self.step, self.rows.stop - self.rows.start)
        is_grouped, dtype = classes <= GROUPED, self.batch.dtype
        compute = loops.Loops(formula, rows, classes, is_grouped, dtype, **self._numbers()).compute
        for block in self._blocks():
            loss = np.empty(block.stop - block.start, dtype)
            grad = self.batch.place_for_grad(block)
            others = compute(*self.batch.load(block, "C"), loss, grad)
            self.batch.store_from(block, loss, grad)
            if others.size:
                self._by_formula(formula, block.start + others)

    def _run_formula(self, formula: Formula) -> None:
        """Compute every block by the formulas of another divergence, or those of the limit."""
        for block in self._blocks():
            self._by_formula(formula, block)

    def _by_formula(self, formula: Formula, rows: Rows) -> None:
        loss, slope = divergence_and_slope(
            PAIRWISE, *self.batch.load(rows), self.beta, self.scaled, formula
        )
        self.batch.store(rows, loss, slope, self.grad_factor)

    def _compute_deferred(self, least: int) -> None:
        """Compute the deferred rows by the other formula, if there are so many."""
        if sum(map(len, self.for_quick)) >= least:
            self._quick(_pop_all(self.for_quick))
        if sum(map(len, self.for_accurate)) >= least:
            self._accurate(_pop_all(self.for_accurate), last=True)

    def _quick(self, rows: Rows) -> float:
        """Return which fraction of the rows is deferred to `loss_and_slope`."""
        z, v = self.batch.load(rows)
        kl, slope, total = _quick(z, v, self.beta)
        is_close = (kl < self.least_kl) | (_max(np.abs(slope)) < self.least_slope)
        is_close |= kl == np.inf  # of a class excluded, or of a logarithm that overflowed
        factor = self.unit * self.grad_factor / total
        self.batch.store(rows, kl * self.unit * self.unit, slope, factor)
        return self._defer(self.for_accurate, rows, is_close)

    def _accurate(self, rows: Rows, last: bool = False) -> float:
        """Return which fraction is deferred to `_quick`: where KL may be large enough for it."""
        loss, slope, factor = loss_and_slope(
            OPERATIONS, *self.batch.load(rows), self.beta, self.scaled
        )
        self.batch.store(rows, loss, slope, factor * self.grad_factor)
        if last:
            return 0.0
        return self._defer(
            self.for_quick, rows, ~(loss / self.unit / self.unit < 0.999 * self.least_kl)
        )

    @staticmethod
    def _defer(others: list[NDArray[np.intp]], rows: Rows, condition: NDArray[np.bool_]) -> float:
        left = np.flatnonzero(condition)
        if left.size:
            others.append(_numbers(rows)[left])
        return left.size / max(1, condition.size)


def _numbers(rows: Rows) -> NDArray[np.intp]:
    return np.arange(rows.start, rows.stop) if isinstance(rows, slice) else rows


def _pop_all(left: list[NDArray[np.intp]]) -> NDArray[np.intp]:
    rows = np.concatenate(left)
    left.clear()
    return rows


def _max(rows: FloatArray) -> FloatArray:
    return np.maximum.reduce(rows, axis=1, keepdims=True)


def _sum(rows: FloatArray) -> FloatArray:
    """Add up each row, in an order that does not depend on the rows beside it."""
    classes = rows.shape[1]
    if classes > FEW:
        return np.add.reduceat(rows, [0], axis=1)
    if classes > 10:  # one after the other, many would lose the small ones
        return _sum(rows[:, : classes // 2]) + _sum(rows[:, classes // 2 :])
    if len(rows) == 1:  # a lone row would be added in pairs
        return np.add.accumulate(rows, axis=1)[:, -1:] + 0.0  # as `reduce`, never −0
    return np.add.reduce(rows, axis=1, keepdims=True)


def _pairwise_sum(rows: FloatArray) -> FloatArray:
    """Add up each row by halves: slower than `_sum`, and rounded less where K is large."""
    while rows.shape[1] > 1:
        half, is_odd = divmod(rows.shape[1], 2)
        folded = rows[:, :half] + rows[:, half : 2 * half]
        if is_odd:
            folded[:, :1] += rows[:, -1:]
        rows = folded
    return rows


def _normalizer(rows: FloatArray) -> FloatArray:
    """Return the sum of each row, whose largest number is 1."""
    total = _sum(rows)
    dominated = np.flatnonzero(total < 2) if rows.shape[1] > FEW else total[:0]
    if dominated.size:  # the 1 is added last: beside it, small numbers are rounded away
        others = rows[dominated]
        np.put_along_axis(others, others.argmax(axis=1, keepdims=True), 0, axis=1)
        total[dominated] = _sum(others) + 1
    return total


def _quick(z: FloatArray, v: FloatArray, beta: float) -> tuple[FloatArray, ...]:
    """Return KL, (q − p) times the normalizer of p, and that, of n rows.

    With a = log q and b = log p, both up to a constant, and  r = Σ eᵇ / Σ eᵃ,
    q − p = (r eᵃ − eᵇ) / Σ eᵇ  and  log(q/p) = a − b + log r.  All is done in place. The
    same rounded log r serves both, so that its error enters KL to second order only.
    """
    a, b = z - _max(z), v - _max(v)
    a *= beta
    b *= beta
    x = a - b
    x[b == -np.inf] = 0  # 0 log 0 = 0
    only_by_student = x == -np.inf
    q, p = np.exp(a, out=a), np.exp(b, out=b)
    total = _normalizer(p)
    log_r = np.log(total / _normalizer(q))
    q *= np.exp(log_r)
    q -= p
    x += log_r
    x *= p
    x[only_by_student] = -np.inf  # also where p underflows
    kl = _sum(np.subtract(q, x, out=x)) / total
    return kl, q, total


class _Selection:
    def __init__(self, condition: FloatArray) -> None:
        self.shape = condition.shape
        self.where = np.flatnonzero(_flat(condition))

    def take(self, rows: FloatArray) -> FloatArray:
        entries: FloatArray = _flat(rows)[self.where]
        return entries

    def take_column(self, column: FloatArray) -> FloatArray:
        rows, classes = self.shape
        in_rows = self.where % rows if classes <= FEW else self.where // classes
        entries: FloatArray = column[in_rows, 0]
        return entries

    def put(self, rows: FloatArray, values: FloatArray) -> FloatArray:
        _flat(rows)[self.where] = values
        return rows


def _flat(rows: FloatArray) -> FloatArray:
    """Return all entries of a block, in the order in which they are stored, without a copy."""
    entries: FloatArray = rows.reshape(-1, order="A", copy=False)
    return entries


class _Operations:
    """The operations of `_formulas.py` in NumPy."""

    exp, log, log1p = staticmethod(np.exp), staticmethod(np.log), staticmethod(np.log1p)
    expm1 = staticmethod(np.expm1)
    where, clip = staticmethod(np.where), staticmethod(np.clip)
    row_sum, row_max = staticmethod(_sum), staticmethod(_max)
    normalizer = staticmethod(_normalizer)
    select = _Selection
    expects_excluded = False

    @staticmethod
    def exp_(x: FloatArray) -> FloatArray:
        return np.exp(x, out=x)

    @staticmethod
    def at_top(v: FloatArray, z: FloatArray) -> tuple[FloatArray, FloatArray]:
        if v.shape[1] > FEW:
            top = v.argmax(axis=1, keepdims=True)
            return np.take_along_axis(v, top, 1), np.take_along_axis(z, top, 1)
        v_top = _max(v)
        is_top = v == v_top
        ties = _sum(is_top.astype(v.dtype))
        z_top = _sum(np.where(is_top, z, 0)) / ties
        if (ties > 1).any():  # the mean of several, exactly if they are equal
            z_top += _sum(np.where(is_top, z - z_top, 0)) / ties
        i = np.flatnonzero(~np.isfinite(z_top))  # one of these is excluded
        z_top[i, 0] = z[i, v[i].argmax(axis=1)]
        return v_top, z_top

    @staticmethod
    def dtype_name(x: FloatArray) -> str:
        return x.dtype.name

    @staticmethod
    def any(condition: FloatArray) -> bool:
        return bool(condition.any())

    @staticmethod
    def all_within(x: FloatArray, bound: float) -> bool:
        return bool(max(x.max(), -x.min()) <= bound)


class _PairwiseOperations(_Operations):
    """With sums that are rounded less: in other divergences their errors are not squared."""

    row_sum = staticmethod(_pairwise_sum)
    normalizer = staticmethod(_pairwise_sum)


OPERATIONS = cast(Operations, _Operations())
PAIRWISE = cast(Operations, _PairwiseOperations())
