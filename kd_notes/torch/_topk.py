"""The KD loss of a teacher of whom only k classes are known, as a PyTorch function."""

from __future__ import annotations

import functools
import math
from typing import NamedTuple

import torch
from torch import Tensor

from kd_notes._checks import as_flag, as_temperature, has_bucket, mass_requirement
from kd_notes._f_divergences import FORWARD
from kd_notes._groups import (
    bounded_inverse,
    chained,
    group_unit,
    log_mass,
    mass_tolerance,
    student_groups,
    teacher_groups,
)
from kd_notes.torch._checks import (
    require_class_numbers,
    require_mask,
    require_rows,
    require_top_k,
)
from kd_notes.torch._distributed import row_by_row
from kd_notes.torch._operations import OPERATIONS, wide
from kd_notes.torch._row_loss import savable
from kd_notes.torch._soft_formula import SoftFormula

HALVES = (torch.float16, torch.bfloat16)


def topk_kd_loss(
    student_logits: Tensor,
    teacher_values: Tensor,
    teacher_indices: Tensor,
    temperature: float = 1.0,
    *,
    tail: str = "bucket",
    teacher_log_normalizer: Tensor | None = None,
    scaled: bool = True,
    mask: Tensor | None = None,
) -> Tensor:
    r"""Return the KD loss of a teacher of whom k classes are known, by default times temperature².

    Parameters
    ----------
    student_logits
        `(..., K)`, of any float dtype.
    teacher_values
        `(..., k)`, the teacher's logits, or log-probabilities at temperature 1, of k classes,
        usually its k best. Give those that were stored in half precision in it: their rounding
        is then allowed for, where they sum to more than 1.
    teacher_indices
        `(..., k)`, the numbers of these classes, of an integer dtype, in 0..K-1 and distinct
        within a row.
    temperature
        Greater than 0, `inf` allowed.
    tail
        What becomes of the teacher's other K - k classes, as `kd_notes.topk_kd_loss` says:
        `"bucket"` makes them one class in both networks, `"renormalize"` gives them
        probability 0.
    teacher_log_normalizer
        `(...)`, :math:`\log \sum_i e^{v_i/\tau}` with the teacher's values :math:`v_i` of all K
        classes, which `"bucket"` needs; 0 if not given, as for log-probabilities at temperature 1.
    scaled
        Whether the loss is multiplied by temperature squared.
    mask
        A bool tensor `(...)`, True for what is kept. The loss of an example, or token, that is
        not kept is 0, and so is its gradient. What it holds, even nan, or indices of -1, has no
        influence.

    Returns
    -------
    tensor `(...)`
        One loss per example, never negative, in nats if not scaled. Its dtype is what the dtypes
        of logits, values and log-normalizer promote to, and float32 for half precision.

    Raises
    ------
    ValueError
        As `kd_notes.topk_kd_loss`, or if the batch shapes differ. In a compiled graph, and on
        a device other than the CPU, an invalid index, and a sum of probabilities above 1,
        fail an assertion on the device.
    TypeError
        If logits, values or log-normalizer are not tensors of real floating-point numbers, the
        indices are no tensor of integers, the temperature is not a real number, `scaled` is
        not a bool, or the mask no tensor of bools.

    Notes
    -----
    For autograd it is `kd_loss` of the k classes, and of two classes, the k and the rest, whose
    logits are log-sum-exps: it has derivatives of every order. The teacher gets no
    gradient. For the backward pass it keeps one tensor of the size of the logits, in float32 or
    wider.

    Where the loss is scaled and temperature squared overflows, as at infinite temperature, the
    gradient is only that of the k classes among themselves; a loss of k < K classes is then
    `inf` or without a correct digit.

    Examples
    --------
    A student that keeps nothing of its mass on the teacher's two best classes:

    >>> import torch
    >>> from kd_notes.torch import topk_kd_loss
    >>> teacher = torch.tensor([3.0, 1.0, -1.0, -2.0])
    >>> log_p, indices = teacher.log_softmax(-1).topk(2)
    >>> student = torch.tensor([-40.0, -42.0, 0.0, -1.0], requires_grad=True)
    >>> loss = topk_kd_loss(student, log_p, indices)
    >>> loss
    tensor(39.2145, grad_fn=<...>)
    >>> torch.autograd.grad(loss, student)[0]
    tensor([-0.8618, -0.1166,  0.7153,  0.2631])

    Padding is left out by a mask, and by what the sum is divided by:

    >>> padding = torch.full((4,), torch.nan)
    >>> students = torch.stack([student, padding])
    >>> teachers = [torch.stack([x, x.new_full((2,), -1)]) for x in (log_p, indices)]
    >>> mask = torch.tensor([True, False])
    >>> bool(topk_kd_loss(students, *teachers, mask=mask).sum() / mask.sum() == loss)
    True
    """
    compute = functools.partial(_losses, temperature=temperature, tail=tail, scaled=scaled)
    teacher = teacher_values, teacher_indices, teacher_log_normalizer
    losses: Tensor = row_by_row(compute, student_logits, *teacher, mask)
    return losses


def _losses(
    student_logits: Tensor,
    teacher_values: Tensor,
    teacher_indices: Tensor,
    teacher_log_normalizer: Tensor | None,
    mask: Tensor | None,
    *,
    temperature: float,
    tail: str,
    scaled: bool,
) -> Tensor:
    require_top_k(student_logits, teacher_values, teacher_indices, teacher_log_normalizer)
    if mask is not None:
        require_mask(mask, student_logits)
    temperature, scaled = as_temperature(temperature), as_flag("scaled", scaled)
    is_normalized = teacher_log_normalizer is not None
    classes = teacher_values.shape[-1], student_logits.shape[-1]
    bucket = has_bucket(tail, temperature, scaled, classes, is_normalized)
    left_out = None if mask is None else ~mask.unsqueeze(-1)
    teacher = teacher_values, teacher_indices, teacher_log_normalizer
    values, indices, normalizer, tolerance = _known(student_logits, *teacher, left_out)
    info = torch.finfo(values.dtype)
    beta = bounded_inverse(temperature, info.tiny, info.max)
    mass = _log_mass(values, normalizer if bucket else None, beta)
    is_mass = ~(mass > tolerance).squeeze(-1)
    require_rows(is_mass, mass_requirement(is_normalized), mass.exp().squeeze(-1))
    within, rest = _split(student_logits, indices, values.dtype, left_out)
    loss = _loss(within, rest, values, mass, tolerance, temperature, beta, scaled)
    return loss if left_out is None else loss.masked_fill(left_out.squeeze(-1), 0)


class _Known(NamedTuple):
    """What is known of the teacher, in the dtype of the result."""

    values: Tensor  # (..., k)
    indices: Tensor  # (..., k)
    log_normalizer: Tensor  # (..., 1)
    tolerance: Tensor  # (..., 1), of log P


def _known(
    student: Tensor,
    values: Tensor,
    indices: Tensor,
    log_normalizer: Tensor | None,
    left_out: Tensor | None,
) -> _Known:
    """Check the class numbers. A row that is left out gets a teacher of equal logits."""
    if log_normalizer is None:
        log_normalizer = values.new_zeros(values.shape[:-1])
    known, indices = [values.detach(), log_normalizer.detach().unsqueeze(-1)], indices.long()
    dtype = wide(student.dtype)
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in known], dtype)
    values, normalizer = (x.to(dtype) for x in known)
    k, num_classes = values.shape[-1], student.shape[-1]
    if left_out is not None:
        values = values.masked_fill(left_out, 0)
        indices = torch.where(left_out, torch.arange(k, device=indices.device), indices)
        normalizer = normalizer.masked_fill(left_out, math.log(num_classes))
    require_class_numbers(indices, num_classes)
    tolerance = mass_tolerance(normalizer, any(x.dtype in HALVES for x in known))
    return _Known(values, savable(indices), normalizer, tolerance)


def _split(
    student: Tensor, indices: Tensor, dtype: torch.dtype, left_out: Tensor | None
) -> tuple[Tensor, Tensor]:
    """Return the student's logits of the k classes, and all logits without these."""
    within = student.gather(-1, indices).to(dtype)
    rest = student.scatter(-1, indices, -math.inf).to(dtype)
    if left_out is None:
        return within, rest
    return within.masked_fill(left_out, 0), rest.masked_fill_(left_out, 0)  # both are copies


def _loss(
    within: Tensor,
    rest: Tensor,
    values: Tensor,
    log_mass: Tensor,
    tolerance: Tensor,
    temperature: float,
    beta: float,
    scaled: bool,
) -> Tensor:
    (top, total), (rest_top, rest_total) = (_exponentials(x, beta) for x in (within, rest))
    z = student_groups(OPERATIONS, top - rest_top, total, rest_total, beta)
    mass, *v = teacher_groups(OPERATIONS, log_mass, tolerance, rest_total, beta)
    unit, student, teacher = group_unit(beta), torch.cat(z, -1), torch.cat(v, -1)
    if scaled and unit * unit > torch.finfo(values.dtype).max:
        student = student.detach()  # the derivative with respect to it overflows
    of_groups = _soft_loss(student, teacher, unit, scaled)
    if scaled:
        of_groups = of_groups / (unit * beta) ** 2
    within = torch.where(total == 0, values, within)  # kl(P, Q) is infinite
    of_within = _soft_loss(within, values, temperature, scaled)
    loss: Tensor = chained(OPERATIONS, of_groups, mass.squeeze(-1), of_within)
    return loss


def _soft_loss(student: Tensor, teacher: Tensor, temperature: float, scaled: bool) -> Tensor:
    return SoftFormula(temperature, scaled, FORWARD, 1.0).losses(student, teacher)


def _log_mass(values: Tensor, log_normalizer: Tensor | None, beta: float) -> Tensor:
    v_top, top = values.max(-1, keepdim=True)
    others = torch.exp((values - v_top) * beta).scatter(-1, top, 0.0).sum(-1, keepdim=True)
    return log_mass(OPERATIONS, v_top, others, log_normalizer, beta)


def _exponentials(logits: Tensor, beta: float) -> tuple[Tensor, Tensor]:
    """Return the top logits, 0 where all classes are excluded, and the sums beside them."""
    top = logits.detach().amax(-1, keepdim=True)
    top = torch.where(top == -math.inf, 0.0, top)
    return top, torch.exp((logits - top) * beta).sum(-1, keepdim=True)
