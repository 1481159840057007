"""The KD loss, its gradient, and its mixture with the labels (Eq. 8, 10, 13)."""

from __future__ import annotations

from typing import Any, TypedDict, overload

import numpy as np
from numpy.typing import ArrayLike

from kd_notes._checks import (
    FloatArray,
    Loss,
    Row,
    RowLabel,
    as_alpha,
    as_array,
    as_flag,
    as_logit_pair,
    as_loss,
    as_teacher_factor,
    as_temperature,
    require_out,
)
from kd_notes._cross_entropy import cross_entropy_grad_rows, cross_entropy_rows
from kd_notes._f_divergences import Formula, as_formula
from kd_notes._kernel import soft_loss_and_grad
from kd_notes._labels import as_logits_and_labels
from kd_notes.divergences import Divergence

__all__ = [
    "kd_grad",
    "kd_loss",
    "kd_loss_and_grad",
    "knowledge_distillation_grad",
    "knowledge_distillation_loss",
]


# fmt: off
@overload
def kd_loss(
    student_logits: Row, teacher_logits: Row, temperature: float = ..., *,
    divergence: str | Divergence = ..., teacher_temperature: float | None = ...,
    scaled: bool = ...,
) -> float: ...
@overload
def kd_loss(
    student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: float = ..., *,
    divergence: str | Divergence = ..., teacher_temperature: float | None = ...,
    scaled: bool = ...,
) -> FloatArray: ...
# fmt: on
def kd_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    temperature: float = 1.0,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
) -> Loss:
    r"""Return the knowledge distillation loss, by default times temperature squared.

    Parameters
    ----------
    student_logits, teacher_logits
        `(..., K)`, with the K classes on the last axis. A class that both exclude (`-inf`)
        is left out. A class that only the student excludes makes the loss `inf`. For a class
        that only the teacher excludes, the teacher's probability is 0. So for the forward KL
        divergence; for others, see them.
    temperature
        Greater than 0, `inf` allowed.
    divergence
        A divergence of `kd_notes.divergences`, or the name of one with its default parameter:
        `"forward_kl"`, `"reverse_kl"`, `"jeffreys"`, `"jensen_shannon"`, `"total_variation"`.
    teacher_temperature
        That of the teacher, if it has one of its own: greater than 0, `inf` allowed.
        The teacher's logits are then multiplied by temperature / teacher_temperature, which must
        be between 2.2e-308 and 1.8e308.
    scaled
        Whether the loss is multiplied by temperature squared, the student's, or by temperature
        for total variation. At infinite temperature the scaled loss is
        `regularized_logit_matching_loss`, the unscaled one is 0.

    Returns
    -------
    array `(...)`
        One loss per example, never negative, in nats if not scaled; `.mean()` averages a
        batch. Its dtype is what the two dtypes promote to, where integers count as float64; two
        float16 arrays give a float32 loss. The loss of one example is a NumPy scalar, or a
        `float` if both arguments are plain lists.

    Raises
    ------
    ValueError
        If shapes do not match, K is 0, a temperature is not above 0, there is no divergence of
        that name, or the teacher's temperature is finite and the student's is not: the scaled
        loss is then infinite for every teacher that is not uniform.
    TypeError
        If an argument does not hold real numbers, or `scaled` is not a bool.

    Notes
    -----
    Eq. 8 of the note :cite:p:`Che21` and Hinton et al. :cite:p:`HVD15`:
    :math:`\tau^2\,\mathrm{KL}(p^t, p^s)` with :math:`p = \operatorname{softmax}(z/\tau)`.

    Every smooth divergence, divided by its :math:`f''(1)`, has the same limit at infinite
    temperature. Total variation has another: half the mean of :math:`|\Delta_i - \bar\Delta|`,
    :math:`\Delta = z^s - z^t`. With a temperature of its own, c times as low, the teacher's
    logits count c times as much in the limit.

    Loss and gradient of the smooth divergences are tested for relative errors of at most
    :math:`16\,\varepsilon\,(1 + \kappa)`, with the condition number :math:`\kappa` with respect
    to the logits, where it is below :math:`1/\varepsilon`. The gradient's error and condition
    number are the largest of its entries, relative to its largest entry. Exempt are results
    below the smallest normal number of the dtype, and what a probability below it contributes: it
    may count as 0. In float32 that is the probability of a class more than 87 temperatures below
    the largest logit. In float32 a finite temperature above 8.5e37 counts as infinite, and one
    below 2.9e-39 as 2.9e-39; in float64 the bounds are 4.5e307 and 5.6e-309.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import kd_loss, regularized_logit_matching_loss
    >>> student, teacher = [1.0, 2.0, 0.0], [3.0, 1.0, -1.0]
    >>> [round(kd_loss(student, teacher, tau), 6) for tau in (1, 4, np.inf)]
    [0.865114, 1.102859, 1.0]
    >>> round(regularized_logit_matching_loss(student, teacher), 6)
    1.0
    >>> round(kd_loss(student, teacher, np.inf, divergence="reverse_kl"), 6)
    1.0
    >>> loss = kd_loss(student, teacher, 1e6, teacher_temperature=5e5)
    >>> limit = kd_loss(student, [6.0, 2.0, -2.0], np.inf)
    >>> round(loss, 3), round(limit, 3)
    (4.333, 4.333)
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    options = _options(temperature, divergence, teacher_temperature, scaled)
    return as_loss(kd_rows(student, teacher, **options), scalar_type)


def kd_grad(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    temperature: float = 1.0,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
) -> FloatArray:
    r"""Return the gradient of `kd_loss` with respect to the student's logits.

    Parameters
    ----------
    student_logits, teacher_logits, temperature, divergence, teacher_temperature, scaled
        As `kd_loss`.

    Returns
    -------
    array `(..., K)`
        :math:`\tau (p_i^s - p_i^t)` if scaled, :math:`(p_i^s - p_i^t)/\tau` if not; each
        row sums to zero. It stays finite where only the student excludes a class. So for the
        forward KL divergence. For another, where only one network excludes a class and the
        loss is `inf`, the gradient is that of :math:`|\log(p_i^s/p_i^t)| = 10` there; and
        where the loss is too large for its dtype, the gradient is only finite.

    Raises
    ------
    ValueError, TypeError
        As `kd_loss`.

    Notes
    -----
    Eq. 10 of the note :cite:p:`Che21`; at infinite temperature, scaled, Eq. 11. In general, with
    :math:`h(x) = f(x) - x f'(x)` and :math:`h_i = h(p_i^t/p_i^s)`, it is
    :math:`\tau\,p_i^s (h_i - \sum_j p_j^s h_j)`, for total variation without the
    factor :math:`\tau`.

    Examples
    --------
    >>> from kd_notes import kd_grad
    >>> kd_grad([1.0, 2.0, 0.0], [3.0, 1.0, -1.0], temperature=4).round(6)
    array([-0.719938,  0.448132,  0.271806])
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    options = _options(temperature, divergence, teacher_temperature, scaled)
    return as_array(kd_grad_rows(student, teacher, **options), scalar_type)


# fmt: off
@overload
def kd_loss_and_grad(
    student_logits: Row, teacher_logits: Row, temperature: float = ..., *,
    divergence: str | Divergence = ..., teacher_temperature: float | None = ...,
    scaled: bool = ..., out: FloatArray | None = ...,
) -> tuple[float, FloatArray]: ...
@overload
def kd_loss_and_grad(
    student_logits: ArrayLike, teacher_logits: ArrayLike, temperature: float = ..., *,
    divergence: str | Divergence = ..., teacher_temperature: float | None = ...,
    scaled: bool = ..., out: FloatArray | None = ...,
) -> tuple[FloatArray, FloatArray]: ...
# fmt: on
def kd_loss_and_grad(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    temperature: float = 1.0,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
    out: FloatArray | None = None,
) -> tuple[Loss, FloatArray]:
    r"""Return `kd_loss` and `kd_grad` from one pass over the logits.

    Parameters
    ----------
    student_logits, teacher_logits, temperature, divergence, teacher_temperature, scaled
        As `kd_loss`.
    out
        An array `(..., K)` of the gradient's dtype, into which the gradient is written.

    Returns
    -------
    loss
        array `(...)`, as `kd_loss`.
    grad
        array `(..., K)`, as `kd_grad`; `out` itself if it was given.

    Raises
    ------
    ValueError, TypeError
        As `kd_loss`, or if `out` does not have the gradient's shape and dtype, is not
        writeable, has entries that share memory, or shares memory with the logits.

    Notes
    -----
    Eq. 8 and Eq. 10 of the note :cite:p:`Che21`.

    Examples
    --------
    >>> import numpy as np
    >>> from kd_notes import kd_loss_and_grad
    >>> student, teacher = np.zeros((2, 3)), np.eye(2, 3)
    >>> gradient = np.empty((2, 3))
    >>> loss, grad = kd_loss_and_grad(student, teacher, 2, out=gradient)
    >>> loss.shape, grad is gradient
    ((2,), True)
    """
    (student, teacher), scalar_type = as_logit_pair(student_logits, teacher_logits)
    options = _options(temperature, divergence, teacher_temperature, scaled)
    if out is not None:
        require_out(out, student.shape, scalar_type, student, teacher)
    loss = np.empty(student.shape[:-1], np.result_type(np.float32, scalar_type))
    grad = np.empty(student.shape, scalar_type) if out is None else out
    soft_loss_and_grad(student, teacher, **options, loss=loss, grad=grad)
    return as_loss(loss, scalar_type), as_array(grad, scalar_type)


# fmt: off
@overload
def knowledge_distillation_loss(
    student_logits: Row, teacher_logits: Row, hard_labels: RowLabel,
    temperature: float, alpha: float, *, divergence: str | Divergence = ...,
    teacher_temperature: float | None = ..., scaled: bool = ...,
) -> float: ...
@overload
def knowledge_distillation_loss(
    student_logits: ArrayLike, teacher_logits: ArrayLike, hard_labels: ArrayLike,
    temperature: float, alpha: float, *, divergence: str | Divergence = ...,
    teacher_temperature: float | None = ..., scaled: bool = ...,
) -> FloatArray: ...
# fmt: on
def knowledge_distillation_loss(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    hard_labels: ArrayLike,
    temperature: float,
    alpha: float,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
) -> Loss:
    r"""Return the KD loss mixed with cross-entropy on the labels.

    Parameters
    ----------
    student_logits, teacher_logits
        `(..., K)`, as `kd_loss`.
    hard_labels
        Class indices `(...)` or distributions `(..., K)`, as `cross_entropy_loss`. Integers
        with as many axes as one network's logits but fewer than the other's are refused if
        their last axis has length K, because they could be either.
    temperature
        Of the soft term, greater than 0, `inf` allowed. The hard term is at temperature 1.
    alpha
        Weight of the soft term, in [0, 1].
    divergence, teacher_temperature
        Of the soft term, as `kd_loss`.
    scaled
        Whether the soft term is multiplied by temperature squared, as `kd_loss`.

    Returns
    -------
    array `(...)`
        One loss per example, in nats if not scaled. One example as plain lists gives a
        `float`; float16 logits give float32.

    Raises
    ------
    ValueError
        If shapes do not match, a label is invalid, a temperature is not above 0, alpha is
        outside [0, 1], or as `kd_loss`.
    TypeError
        If an argument does not hold real numbers, or `scaled` is not a bool.

    Notes
    -----
    :math:`(1-\alpha)\,\mathrm{CE}(y, p) + \alpha \tau^2\,\mathrm{KL}(p^t, p^s)`, where :math:`p`
    is the student's softmax at temperature 1, and :math:`p^s` and :math:`p^t` are at
    :math:`\tau`: with `scaled=False` and temperature 1, Eq. 13 of the note :cite:p:`Che21`.

    Examples
    --------
    >>> from kd_notes import knowledge_distillation_loss
    >>> loss = knowledge_distillation_loss(
    ...     [1.0, 2.0, 0.0], [3.0, 1.0, -1.0], 0, temperature=4, alpha=0.5
    ... )
    >>> round(loss, 6)
    1.255233
    """
    alpha = as_alpha(alpha)
    options = _options(temperature, divergence, teacher_temperature, scaled)
    (student, teacher, y), scalar_type = as_logits_and_labels(
        "hard_labels", hard_labels, student_logits=student_logits, teacher_logits=teacher_logits
    )
    soft = kd_rows(student, teacher, **options)
    return as_loss(mixture(alpha, cross_entropy_rows(student, y), soft), scalar_type)


def knowledge_distillation_grad(
    student_logits: ArrayLike,
    teacher_logits: ArrayLike,
    hard_labels: ArrayLike,
    temperature: float,
    alpha: float,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
) -> FloatArray:
    r"""Return the gradient of `knowledge_distillation_loss` with respect to the student's logits.

    Parameters
    ----------
    student_logits, teacher_logits, hard_labels, temperature, alpha
        As `knowledge_distillation_loss`.
    divergence, teacher_temperature, scaled
        As `knowledge_distillation_loss`.

    Returns
    -------
    array `(..., K)`
        Each row sums to zero.

    Raises
    ------
    ValueError, TypeError
        As `knowledge_distillation_loss`.

    Notes
    -----
    The gradient of Eq. 13 of the note :cite:p:`Che21`, from its Eq. 3 and Eq. 10. If scaled,
    and with p at temperature 1, it is

    .. math:: (1-\alpha)(p_i - y_i) + \alpha \tau (p_i^s - p_i^t).

    Examples
    --------
    >>> from kd_notes import knowledge_distillation_grad
    >>> knowledge_distillation_grad([0.0, 0.0], [0.0, 0.0], 0, 4, alpha=0.5)
    array([-0.25,  0.25])
    """
    alpha = as_alpha(alpha)
    options = _options(temperature, divergence, teacher_temperature, scaled)
    (student, teacher, y), scalar_type = as_logits_and_labels(
        "hard_labels", hard_labels, student_logits=student_logits, teacher_logits=teacher_logits
    )
    soft = kd_grad_rows(student, teacher, **options)
    hard = cross_entropy_grad_rows(student, y)
    return as_array(mixture(alpha, hard, soft), scalar_type)


class Options(TypedDict):
    """What the loss is computed with, checked."""

    temperature: float
    scaled: bool
    formula: Formula
    teacher_factor: float


def _options(
    temperature: float,
    divergence: str | Divergence,
    teacher_temperature: float | None,
    scaled: bool,
) -> Options:
    temperature = as_temperature(temperature)
    return {
        "temperature": temperature,
        "scaled": as_flag("scaled", scaled),
        "formula": as_formula(divergence),
        "teacher_factor": as_teacher_factor(teacher_temperature, temperature),
    }


def kd_rows(
    student: FloatArray,
    teacher: FloatArray,
    temperature: float = 1.0,
    scaled: bool = True,
    **divergence: Any,
) -> FloatArray:
    """Return Eq. 8, or another divergence, on checked arrays."""
    loss = np.empty(student.shape[:-1], np.result_type(np.float32, student, teacher))
    soft_loss_and_grad(student, teacher, temperature, scaled=scaled, **divergence, loss=loss)
    return loss


def kd_grad_rows(
    student: FloatArray, teacher: FloatArray, temperature: float, scaled: bool, **divergence: Any
) -> FloatArray:
    """Return Eq. 10, or another divergence's gradient, on checked arrays."""
    grad = np.empty(student.shape, np.result_type(np.float32, student, teacher))
    soft_loss_and_grad(student, teacher, temperature, scaled=scaled, **divergence, grad=grad)
    return grad


def mixture(alpha: float, first: Any, second: Any) -> Any:
    """Return `(1 - alpha) first + alpha second`, where a weight of 0 times inf is 0."""
    if alpha == 0:
        return first
    if alpha == 1:
        return second
    return (1 - alpha) * first + alpha * second
