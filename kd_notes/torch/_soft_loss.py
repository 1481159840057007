"""The soft loss of PyTorch's logits: the public function, and what it checks."""

from __future__ import annotations

import functools

from torch import Tensor

from kd_notes._checks import as_flag, as_teacher_factor, as_temperature
from kd_notes._f_divergences import as_formula
from kd_notes.divergences import Divergence
from kd_notes.torch._checks import with_classes_last
from kd_notes.torch._distributed import row_by_row
from kd_notes.torch._soft_formula import SoftFormula
from kd_notes.torch._tensor_temperature import TensorTemperatures


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float | Tensor = 1.0,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | Tensor | None = None,
    scaled: bool = True,
    class_dim: int = -1,
) -> Tensor:
    r"""Return the knowledge distillation loss, by default times temperature squared.

    Parameters
    ----------
    student_logits, teacher_logits
        `(..., K)`, of one shape, and of any float dtypes. A class that both exclude
        (`-inf`) takes no part; one that only the student excludes makes the loss `inf`;
        one that only the teacher excludes has no teacher probability. So for the forward KL
        divergence; for others, see them.
    temperature
        Greater than 0, `inf` allowed. Or a finite tensor, of shape `()` or with one number for
        each example `(...)`, which gets a gradient if it requires one.
    divergence
        A divergence of `kd_notes.divergences`, or the name of one with its default parameter:
        `"forward_kl"`, `"reverse_kl"`, `"jeffreys"`, `"jensen_shannon"`, `"total_variation"`.
    teacher_temperature
        That of the teacher, if it has one of its own: a number or a tensor, as `temperature`.
        The teacher's logits are then multiplied by temperature / teacher_temperature.
    scaled
        Whether the loss is multiplied by temperature squared, the student's, or by temperature
        for total variation. At infinite temperature the scaled loss is half the variance of
        the logit differences, the plain one is 0.
    class_dim
        The axis of the classes, if it is not the last: 1 for images `(N, K, H, W)`.

    Returns
    -------
    tensor `(...)`
        One loss per example, never negative; in nats if not scaled. Its dtype is what the two
        dtypes promote to, and float32 for half precision, whose range it may exceed.

    Raises
    ------
    ValueError
        If the shapes differ, there is no class, a temperature is not above 0, there is no
        divergence of that name, or the teacher's temperature is finite and the student's is not.
    TypeError
        If the logits are not tensors of real floating-point numbers, the temperature is
        not a real number, or `scaled` is not a bool.

    Notes
    -----
    Eq. 8 of the note :cite:p:`Che21` and Hinton et al. :cite:p:`HVD15`, with the gradient
    of Eq. 10 for the student's logits. The teacher's logits get none, even if they
    require one. Its accuracy, and the limits of that, are those of `kd_notes.kd_loss`.

    For the backward pass it keeps the student's logits, which only a second derivative
    uses, and one tensor of their size: the gradient. The last backward pass takes its memory for
    the result, unless hooks save it, as checkpointing does. Nothing of the teacher is stored,
    unless the divergence is another than the forward KL, whose second derivative is the
    student's alone, or a temperature requires a gradient. Eager tensors on a CPU are computed by
    the NumPy core, without a copy; elsewhere PyTorch computes the same formulas, in blocks of
    rows or in a compiled graph.

    With the environment variable `KD_NOTES_TRITON=1`, the forward KL of eager tensors on a CUDA
    device is computed by one Triton kernel, where Triton is installed, both logits are float32,
    bfloat16 or float16, and the classes are adjacent in memory. It is off by default, because
    it has not been run on a GPU: Triton's interpreter has tested its arithmetic, and figures of
    its time and memory are missing.

    A tensor as temperature costs a copy of both networks' logits. Its gradient is a sum of
    terms that nearly cancel at a high temperature: of its digits, about as many are lost as
    temperature over the range of the logits has. Learn its logarithm, so that it stays above 0.

    Every derivative that PyTorch can ask for is there: of higher order, in forward mode, and
    under `torch.func.vmap`. (Forward mode inside forward mode is refused: PyTorch would take the
    second derivative of any `autograd.Function` for 0.) A graph of `torch.export` has the first
    derivatives alone: in a second one, these count as constants. Of a distributed tensor, every
    process computes its own rows. Temperatures for each example are distributed as they are; a
    single one that is not distributed gets, in each process, the gradient of that one's rows.

    Examples
    --------
    In float32, at a temperature of a million:

    >>> import torch
    >>> import torch.nn.functional as F
    >>> from kd_notes.torch import kd_loss
    >>> student = torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True)
    >>> teacher = torch.tensor([[3.0, 1.0, -1.0]])
    >>> loss = kd_loss(student, teacher, temperature=1e6)
    >>> loss
    tensor([1.0000], grad_fn=<...>)
    >>> torch.autograd.grad(loss.sum(), student)[0]
    tensor([[-0.6667,  0.3333,  0.3333]])
    >>> log_p_s = F.log_softmax(student / 1e6, dim=-1)
    >>> p_t = F.softmax(teacher / 1e6, dim=-1)
    >>> usual = F.kl_div(log_p_s, p_t, reduction="batchmean") * 1e6**2
    >>> bool((usual - 1).abs() > 1000)
    True

    A learned temperature:

    >>> log_temperature = torch.tensor(1.0, requires_grad=True)
    >>> kd_loss(student, teacher, log_temperature.exp()).sum().backward()
    >>> log_temperature.grad
    tensor(0.0295)
    """
    student, teacher = with_classes_last(student_logits, teacher_logits, class_dim)
    compute = functools.partial(_losses, divergence=divergence, scaled=scaled)
    losses: Tensor = row_by_row(compute, student, teacher, temperature, teacher_temperature)
    return losses


def _losses(
    student: Tensor,
    teacher: Tensor,
    temperature: float | Tensor,
    teacher_temperature: float | Tensor | None,
    *,
    divergence: str | Divergence,
    scaled: bool,
) -> Tensor:
    formula = checked_formula(temperature, divergence, teacher_temperature, scaled)
    return formula.losses(student, teacher)


def checked_formula(
    temperature: float | Tensor,
    divergence: str | Divergence,
    teacher_temperature: float | Tensor | None,
    scaled: bool,
) -> SoftFormula | TensorTemperatures:
    """Return how the soft loss is computed, if its arguments can be used."""
    formula, scaled = as_formula(divergence), as_flag("scaled", scaled)
    if isinstance(temperature, Tensor) or isinstance(teacher_temperature, Tensor):
        return TensorTemperatures.checked(temperature, teacher_temperature, scaled, formula)
    temperature = as_temperature(temperature)
    factor = as_teacher_factor(teacher_temperature, temperature)
    return SoftFormula(temperature, scaled, formula, factor)
