"""The KD loss of a teacher of whom only k classes are known, as a PyTorch function."""

from __future__ import annotations

import functools
import math

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
from kd_notes.torch._checks import require_rows, require_top_k
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
        indices are no tensor of integers, the temperature is not a real number, or `scaled` is
        not a bool.

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
    """
    compute = functools.partial(_losses, temperature=temperature, tail=tail, scaled=scaled)
    teacher = teacher_values, teacher_indices, teacher_log_normalizer
    losses: Tensor = row_by_row(compute, student_logits, *teacher)
    return losses


def _losses(
    student_logits: Tensor,
    teacher_values: Tensor,
    teacher_indices: Tensor,
    teacher_log_normalizer: Tensor | None,
    *,
    temperature: float,
    tail: str,
    scaled: bool,
) -> Tensor:
    require_top_k(student_logits, teacher_values, teacher_indices, teacher_log_normalizer)
    temperature, scaled = as_temperature(temperature), as_flag("scaled", scaled)
    is_normalized = teacher_log_normalizer is not None
    classes = teacher_values.shape[-1], student_logits.shape[-1]
    bucket = has_bucket(tail, temperature, scaled, classes, is_normalized)
    if teacher_log_normalizer is None:
        teacher_log_normalizer = teacher_values.new_zeros(teacher_values.shape[:-1])
    known = [teacher_values.detach(), teacher_log_normalizer.detach().unsqueeze(-1)]
    dtype = wide(student_logits.dtype)
    dtype = functools.reduce(torch.promote_types, [x.dtype for x in known], dtype)
    values, normalizer = (x.to(dtype) for x in known)
    info = torch.finfo(dtype)
    beta = bounded_inverse(temperature, info.tiny, info.max)
    mass = _log_mass(values, normalizer if bucket else None, beta)
    tolerance = mass_tolerance(normalizer, any(x.dtype in HALVES for x in known))
    is_mass = ~(mass > tolerance).squeeze(-1)
    require_rows(is_mass, mass_requirement(is_normalized), mass.exp().squeeze(-1))
    indices = savable(teacher_indices.long())
    within = student_logits.gather(-1, indices).to(dtype)
    rest = student_logits.scatter(-1, indices, -math.inf).to(dtype)
    return _loss(within, rest, values, mass, tolerance, temperature, beta, scaled)


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
