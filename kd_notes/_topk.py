"""The KD loss of a teacher of whom only the k best classes are known.

If a set S of classes has mass P in the teacher and Q in the student, the chain rule of the KL
divergence says

    KL = kl(P, Q) + P · KL(within S) + (1 − P) · KL(within the rest),

where kl(P, Q) is the divergence of two classes, S and the rest. The last term needs the
teacher's other classes, and is left out. The other two are KD losses: one of the k logits, one
of two logits. A teacher renormalized over S is one with P = 1.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from typing import NamedTuple, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike, NDArray

from kd_notes._checks import (
    FloatArray,
    Loss,
    Row,
    ScalarType,
    as_array,
    as_flag,
    as_log_normalizer,
    as_loss,
    as_rows,
    as_temperature,
    has_bucket,
    require_mass,
    require_top_k,
    result_type,
    with_classes,
)
from kd_notes._distillation import kd_grad_rows, kd_rows
from kd_notes._groups import (
    bounded_inverse,
    chained,
    group_unit,
    log_mass,
    mass_tolerance,
    student_groups,
    teacher_groups,
)
from kd_notes._kernel import BLOCK, OPERATIONS
from kd_notes._labels import as_indices

__all__ = ["topk_kd_grad", "topk_kd_loss"]


# fmt: off
@overload
def topk_kd_loss(
    student_logits: Row, teacher_values: Row, teacher_indices: Sequence[int],
    temperature: float = ..., *, tail: str = ..., teacher_log_normalizer: float | None = ...,
    scaled: bool = ...,
) -> float: ...
@overload
def topk_kd_loss(
    student_logits: ArrayLike, teacher_values: ArrayLike, teacher_indices: ArrayLike,
    temperature: float = ..., *, tail: str = ..., teacher_log_normalizer: ArrayLike | None = ...,
    scaled: bool = ...,
) -> FloatArray: ...
# fmt: on
def topk_kd_loss(
    student_logits: ArrayLike,
    teacher_values: ArrayLike,
    teacher_indices: ArrayLike,
    temperature: float = 1.0,
    *,
    tail: str = "bucket",
    teacher_log_normalizer: ArrayLike | None = None,
    scaled: bool = True,
) -> Loss:
    r"""Return the KD loss of a teacher of whom k classes are known, by default times temperature².

    Parameters
    ----------
    student_logits
        `(..., K)`. Classes that are excluded (`-inf`) have probability 0.
    teacher_values
        `(..., k)`, the teacher's logits, or log-probabilities at temperature 1, of k classes,
        usually its k best. Give those that were stored in half precision in it: their rounding
        is then allowed for, where they sum to more than 1.
    teacher_indices
        `(..., k)`, the numbers of these classes, in 0..K-1 and distinct within a row.
    temperature
        Greater than 0, `inf` allowed.
    tail
        What becomes of the teacher's other K - k classes. `"bucket"`: they are one class, in
        both networks, whose probability is what the k leave. `"renormalize"`: they have
        probability 0, and those of the k are divided by their sum.
    teacher_log_normalizer
        `(...)`, :math:`\log \sum_i e^{v_i/\tau}` with the teacher's values :math:`v_i` of all K
        classes, which `"bucket"` needs; 0 if not given, as for log-probabilities at temperature
        1. It is ignored by `"renormalize"`, and if k = K.
    scaled
        Whether the loss is multiplied by temperature squared.

    Returns
    -------
    array `(...)`
        One loss per example, never negative, in nats if not scaled. Its dtype is as that of
        `kd_loss`; the loss of one example is a NumPy scalar, or a `float` if all arguments are
        plain lists and numbers. It is `inf` if the student excludes one of the k
        classes, or all others, where the teacher does not; and nan where the teacher
        excludes all k.

    Raises
    ------
    ValueError
        If shapes do not match, K is 0, k > K, an index is outside 0..K-1 or repeated, `tail`
        is another, or the temperature is not above 0. For `"bucket"` and k < K also if the
        k probabilities sum to more than 1, beyond rounding; if the temperature is not 1 and there
        is no log-normalizer; and if it is infinite and the loss is scaled.
    TypeError
        If an argument does not hold real numbers, an index is not an integer, or `scaled` is
        not a bool.

    Notes
    -----
    With P and Q for what the k classes S have in all, in the teacher and the student,

    .. math:: \mathrm{KL}(p^t, p^s) = \mathrm{kl}(P, Q) + P\,\mathrm{KL}_S
              + (1-P)\,\mathrm{KL}_{\bar S},

    the chain rule of the KL divergence, where kl is that of two classes. `"bucket"` leaves out
    the last term, and so never exceeds `kd_loss`; `"renormalize"` sets P to 1, and is
    :math:`\mathrm{KL}_S - \log Q`. If k = K both are `kd_loss`.

    Loss and gradient are tested for errors of at most :math:`16\,\varepsilon\,(1 + \kappa)`, as
    `kd_loss`, where the condition number :math:`\kappa` counts relative changes of logits,
    values and log-normalizer, and is below :math:`1/\varepsilon`. At a temperature above 1 a
    relative error of the log-normalizer is magnified by about the temperature: give it in float64.

    At infinite temperature, `"renormalize"` with k < K is infinite if scaled, as
    :math:`-\log Q` tends to :math:`\log(K/k)`; `"bucket"` tends to the part of half the variance
    of :math:`z^s - z^t` between the groups and within S. This limit is refused, since the
    log-normalizer tends to log K whatever the other classes are.

    A student that excludes all but the k classes is given a P of 1 if the teacher's differs
    from 1 by rounding: by up to 1e-5, or 1e-2 for float16, times 1 + \|log-normalizer\|. By
    no more may the sum of the k probabilities exceed 1.

    Examples
    --------
    A student that prefers a class that the teacher does not send:

    >>> import numpy as np
    >>> from kd_notes import kd_loss, log_softmax, topk_kd_loss
    >>> teacher = np.array([3.0, 1.0, -1.0, -2.0])
    >>> student = np.array([1.0, 2.0, 0.0, 9.0])
    >>> values, indices = log_softmax(teacher)[:2], [0, 1]
    >>> for tail in ("bucket", "renormalize"):
    ...     print(f"{topk_kd_loss(student, values, indices, tail=tail):.3f}")
    7.250
    7.517
    >>> print(f"{kd_loss(student, teacher):.3f}")
    7.380
    >>> normalizer = np.logaddexp.reduce(teacher / 4)
    >>> loss = topk_kd_loss(
    ...     student, teacher[:2], indices, 4, teacher_log_normalizer=normalizer
    ... )
    >>> print(f"{loss:.3f}, of {kd_loss(student, teacher, 4):.3f}")
    9.587, of 12.735
    """
    batch, options = _read(
        *(student_logits, teacher_values, teacher_indices, temperature),
        *(tail, teacher_log_normalizer, scaled),
    )
    loss = np.empty(len(batch.student), batch.values.dtype)
    with np.errstate(all="ignore"):
        for rows in _blocks(batch):
            loss[rows] = _loss(batch, rows, options)
    return as_loss(loss.reshape(batch.shape), batch.scalar_type)


def topk_kd_grad(
    student_logits: ArrayLike,
    teacher_values: ArrayLike,
    teacher_indices: ArrayLike,
    temperature: float = 1.0,
    *,
    tail: str = "bucket",
    teacher_log_normalizer: ArrayLike | None = None,
    scaled: bool = True,
) -> FloatArray:
    r"""Return the gradient of `topk_kd_loss` with respect to the student's logits.

    Parameters
    ----------
    student_logits, teacher_values, teacher_indices, temperature
        As `topk_kd_loss`.
    tail, teacher_log_normalizer, scaled
        As `topk_kd_loss`.

    Returns
    -------
    array `(..., K)`
        Each row sums to zero where the loss is finite. Where it is `inf`, the gradient is finite.

    Raises
    ------
    ValueError, TypeError
        As `topk_kd_loss`.

    Notes
    -----
    If scaled, :math:`\tau (p_i^s - p_i^t)` for the k classes S, and for the others
    :math:`\tau p_i^s (1 - (1-P)/(1-Q))`: what the teacher leaves them is divided among them as the
    student divides it. Renormalized, P is 1.

    Examples
    --------
    >>> from kd_notes import topk_kd_grad
    >>> student = [0.0, 0.0, 0.0, 0.0]
    >>> topk_kd_grad(student, [0.0, 0.0], [2, 1], tail="renormalize")
    array([ 0.25, -0.25, -0.25,  0.25])
    """
    batch, options = _read(
        *(student_logits, teacher_values, teacher_indices, temperature),
        *(tail, teacher_log_normalizer, scaled),
    )
    grad = np.empty(batch.student.shape, batch.values.dtype)
    with np.errstate(all="ignore"):
        for rows in _blocks(batch):
            grad[rows] = _grad(batch, rows, options)
    return as_array(grad.reshape(*batch.shape, batch.student.shape[1]), batch.scalar_type)


class _Options(TypedDict):
    temperature: float
    scaled: bool


class _Batch(NamedTuple):
    """The checked arguments as n rows, and what the result is to be."""

    student: FloatArray  # (n, K)
    values: FloatArray  # (n, k)
    indices: NDArray[np.intp]  # (n, k)
    log_mass: FloatArray  # (n, 1), log P
    tolerance: FloatArray  # (n, 1), of log P
    beta: float
    shape: tuple[int, ...]
    scalar_type: ScalarType


class _Split(NamedTuple):
    """The logits of a block as those of two KD losses, each student and teacher."""

    groups: tuple[FloatArray, FloatArray]  # S and the rest, (n, 2), times the unit
    within: tuple[FloatArray, FloatArray]  # the classes of S, (n, k)
    mass: FloatArray  # (n, 1), P
    q_within: FloatArray  # (n, k), the student's probabilities within S
    q_rest: FloatArray  # (n, K), those within the rest, and 0 in S


def _read(
    student_logits: ArrayLike,
    teacher_values: ArrayLike,
    teacher_indices: ArrayLike,
    temperature: float,
    tail: str,
    teacher_log_normalizer: ArrayLike | None,
    scaled: bool,
) -> tuple[_Batch, _Options]:
    """Check the arguments, and return them as rows."""
    given = {"student_logits": student_logits, "teacher_values": teacher_values}
    arrays = {name: with_classes(name, value) for name, value in given.items()}
    num_classes, k = (array.shape[-1] for array in arrays.values())
    indices = as_indices("teacher_indices", teacher_indices)
    require_top_k(k, num_classes, indices)
    (student, values, indices), shape = as_rows(**arrays, teacher_indices=indices)
    if teacher_log_normalizer is not None:
        given["teacher_log_normalizer"] = teacher_log_normalizer
        arrays["teacher_log_normalizer"] = as_log_normalizer(teacher_log_normalizer, shape)
    scalar_type = result_type(arrays, *given.values())
    dtype = np.result_type(np.float32, scalar_type)
    options: _Options = {
        "temperature": as_temperature(temperature),
        "scaled": as_flag("scaled", scaled),
    }
    limits = np.finfo(dtype)
    beta = bounded_inverse(options["temperature"], float(limits.tiny), float(limits.max))
    is_normalized = teacher_log_normalizer is not None
    bucket = has_bucket(tail, **options, classes=(k, num_classes), is_normalized=is_normalized)
    normalizer = arrays.get("teacher_log_normalizer", np.zeros((len(values), 1)))
    is_half = np.float16 in (values.dtype, normalizer.dtype)
    values, normalizer = values.astype(dtype), normalizer.astype(dtype)
    mass = _log_mass(values, normalizer if bucket else None, beta)
    tolerance = mass_tolerance(normalizer, is_half)
    require_mass(mass, tolerance, is_normalized, shape)
    rows = student, values, indices.astype(np.intp)
    return _Batch(*rows, mass, tolerance, beta, shape, scalar_type), options


def _log_mass(values: FloatArray, log_normalizer: FloatArray | None, beta: float) -> FloatArray:
    top = values.argmax(axis=1, keepdims=True)
    v_top = np.take_along_axis(values, top, axis=1)
    with np.errstate(all="ignore"):
        others = np.exp((values - v_top) * beta)
        np.put_along_axis(others, top, 0, axis=1)
        total = others.sum(axis=1, keepdims=True)
        mass: FloatArray = log_mass(OPERATIONS, v_top, total, log_normalizer, beta)
    return mass


def _blocks(batch: _Batch) -> Iterator[slice]:
    step = max(1, BLOCK // (batch.student.shape[1] * batch.values.itemsize))
    for start in range(0, len(batch.student), step):
        yield slice(start, start + step)


def _loss(batch: _Batch, rows: slice, options: _Options) -> FloatArray:
    split, unit = _split(batch, rows), group_unit(batch.beta)
    of_groups = kd_rows(*split.groups, unit, options["scaled"])
    if options["scaled"]:
        of_groups /= (unit * batch.beta) ** 2
    within = kd_rows(*split.within, **options)
    loss: FloatArray = chained(OPERATIONS, of_groups, split.mass[:, 0], within)
    return loss


def _grad(batch: _Batch, rows: slice, options: _Options) -> FloatArray:
    split, unit = _split(batch, rows), group_unit(batch.beta)
    ratio = unit * batch.beta
    of_groups = kd_grad_rows(*split.groups, unit, options["scaled"])
    of_groups *= 1 / ratio if options["scaled"] else ratio
    grad = split.q_rest
    grad *= of_groups[:, 1:]
    of_within = split.mass * kd_grad_rows(*split.within, **options)
    of_within += split.q_within * of_groups[:, :1]
    np.put_along_axis(grad, batch.indices[rows], of_within, axis=1)
    return grad


def _split(batch: _Batch, rows: slice) -> _Split:
    values, indices = batch.values[rows], batch.indices[rows]
    rest = batch.student[rows].astype(values.dtype)
    within = np.take_along_axis(rest, indices, axis=1)
    np.put_along_axis(rest, indices, -math.inf, axis=1)
    top, total, q_within = _softmax(within, batch.beta)
    rest_top, rest_total, q_rest = _softmax(rest, batch.beta)
    z = student_groups(OPERATIONS, top - rest_top, total, rest_total, batch.beta)
    mass, *v = teacher_groups(
        OPERATIONS, batch.log_mass[rows], batch.tolerance[rows], rest_total, batch.beta
    )
    groups = np.concatenate(z, axis=1), np.concatenate(v, axis=1)
    within = np.where(total == 0, values, within)  # kl(P, Q) is infinite
    return _Split(groups, (within, values), mass, q_within, q_rest)


def _softmax(logits: FloatArray, beta: float) -> tuple[FloatArray, FloatArray, FloatArray]:
    """Return the top logits, the sums of exponentials that are 1 there, and the probabilities.

    Where all classes are excluded, these are 0.
    """
    top = logits.max(axis=1, keepdims=True)
    top[top == -math.inf] = 0
    q = logits - top
    q *= beta
    np.exp(q, out=q)
    total = q.sum(axis=1, keepdims=True)
    q /= np.where(total == 0, 1, total)
    return top, total, q
