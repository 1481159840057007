"""The soft loss as a PyTorch function with its own backward pass."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple, cast

import torch
from torch import Tensor

from kd_notes._checks import as_flag, as_teacher_factor, as_temperature
from kd_notes._f_divergences import FORWARD, Formula, as_formula, divergence_and_slope
from kd_notes._formulas import Operations, inverse_temperature, loss_and_slope, times
from kd_notes._kernel import soft_loss_and_grad
from kd_notes.divergences import Divergence
from kd_notes.torch._checks import require_logits
from kd_notes.torch._curvature import by_hessian

BLOCK = 2**25  # numbers in a block of rows; the formulas hold about ten such blocks at a time
SMALL_BLOCK = 2**20  # where a block is converted for the NumPy core


def kd_loss(
    student_logits: Tensor,
    teacher_logits: Tensor,
    temperature: float = 1.0,
    *,
    divergence: str | Divergence = "forward_kl",
    teacher_temperature: float | None = None,
    scaled: bool = True,
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
        Greater than 0, `inf` allowed.
    divergence
        A divergence of `kd_notes.divergences`, or the name of one with its default parameter:
        `"forward_kl"`, `"reverse_kl"`, `"jeffreys"`, `"jensen_shannon"`, `"total_variation"`.
    teacher_temperature
        That of the teacher, if it has one of its own: greater than 0, `inf` allowed.
        The teacher's logits are then multiplied by temperature / teacher_temperature.
    scaled
        Whether the loss is multiplied by temperature squared, the student's, or by temperature
        for total variation. At infinite temperature the scaled loss is half the variance of
        the logit differences, the plain one is 0.

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
    require one.

    For the backward pass it keeps the student's logits, which only a second derivative
    uses, and one tensor of their size: the gradient. Nothing of the teacher is stored, unless
    the divergence is another than the forward KL: its second derivative is not the student's
    alone. Eager tensors on a CPU are computed by the NumPy core, without a copy; elsewhere PyTorch
    computes the same formulas, in blocks of rows or in a compiled graph.

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
    >>> log_p_s, p_t = F.log_softmax(student / 1e6, dim=-1), F.softmax(teacher / 1e6, dim=-1)
    >>> bool((F.kl_div(log_p_s, p_t, reduction="batchmean") * 1e6**2 - 1).abs() > 1000)
    True
    """
    require_logits(student_logits, teacher_logits)
    options = Options.checked(temperature, divergence, teacher_temperature, scaled)
    return soft_loss(student_logits, teacher_logits, options)


class Options(NamedTuple):
    """What the loss is computed with, checked."""

    temperature: float
    scaled: bool
    formula: Formula
    teacher_factor: float

    @classmethod
    def checked(
        cls,
        temperature: float,
        divergence: str | Divergence,
        teacher_temperature: float | None,
        scaled: bool,
    ) -> Options:
        temperature = as_temperature(temperature)
        factor = as_teacher_factor(teacher_temperature, temperature)
        return cls(temperature, as_flag("scaled", scaled), as_formula(divergence), factor)


def soft_loss(student: Tensor, teacher: Tensor, options: Options) -> Tensor:
    """Return Eq. 8, or another divergence, on checked logits, in float32 or wider."""
    loss: Tensor = _SoftLoss.apply(student, teacher.detach(), options)[0]
    return loss


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32, or wider."""
    return torch.promote_types(dtype, torch.float32)


class _SoftLoss(torch.autograd.Function):
    """The soft loss and, as a second output, the gradient that its backward pass multiplies by.

    As an output, the gradient is part of the graph; so a second derivative is the backward
    pass of the gradient, and a third one that of the backward pass's own operations.
    """

    @staticmethod
    def forward(student: Tensor, teacher: Tensor, options: Options) -> tuple[Tensor, Tensor]:
        dtype = wide(torch.promote_types(student.dtype, teacher.dtype))
        loss = torch.empty(student.shape[:-1], dtype=dtype, device=student.device)
        grad = torch.empty(student.shape, dtype=dtype, device=student.device)
        compute = _by_numpy if _numpy_can_read(student, teacher) else _by_torch
        compute(student, teacher, options, loss, grad)
        return loss, grad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        student, teacher, ctx.options = inputs
        others = [] if ctx.options.formula == FORWARD else [teacher]
        ctx.save_for_backward(student, output[1], *others)
        ctx.set_materialize_grads(False)

    @staticmethod
    def backward(
        ctx: Any, loss_bar: Tensor | None, grad_bar: Tensor | None
    ) -> tuple[Tensor | None, None, None]:
        """Return loss_bar · grad (Eq. 10) + grad_bar · the Hessian: (diag q − q qᵀ) for Eq. 8."""
        student, grad, *others = ctx.saved_tensors
        result = None if loss_bar is None else loss_bar.unsqueeze(-1) * grad
        if grad_bar is not None:
            by_second = _by_hessian(student, *others, grad_bar, ctx.options)
            result = by_second if result is None else result + by_second
        return None if result is None else result.to(student.dtype), None, None


def _by_hessian(*tensors_and_options: Any) -> Tensor:
    """Return a row times the Hessian, which of the forward KL is the student's alone."""
    student, *others, grad_bar, options = tensors_and_options
    temperature, scaled, formula, teacher_factor = options
    beta = _beta(temperature, grad_bar.dtype)
    if not others:
        below_the_top = student.to(grad_bar.dtype) - student.amax(-1, keepdim=True)
        q = torch.softmax(below_the_top * beta, -1)
        result = q * (grad_bar - (q * grad_bar).sum(-1, keepdim=True))
        return result if scaled else result / temperature / temperature
    teacher = times(OPERATIONS, others[0].to(grad_bar.dtype), teacher_factor)
    result = by_hessian(student.to(grad_bar.dtype), teacher, grad_bar, beta, formula)
    if not scaled:
        return result / temperature / temperature
    return result / temperature if formula.name == "total_variation" else result


def _by_numpy(
    student: Tensor, teacher: Tensor, options: Options, loss: Tensor, grad: Tensor
) -> None:
    """Fill loss and gradient from the NumPy core, which reads and writes the tensors' memory."""
    if torch.bfloat16 in (student.dtype, teacher.dtype):  # NumPy has no such dtype
        for z, v, *results in _row_blocks(SMALL_BLOCK, student, teacher, loss, grad):
            _by_numpy(z.float(), v.float(), options, *results)
        return
    soft_loss_and_grad(
        student.detach().numpy(),
        teacher.numpy(),
        **options._asdict(),
        loss=loss.numpy(),
        grad=grad.numpy(),
    )


def _by_torch(
    student: Tensor, teacher: Tensor, options: Options, loss: Tensor, grad: Tensor
) -> None:
    """Fill loss and gradient by PyTorch's operations, without a branch on a tensor's values."""
    temperature, scaled, formula, teacher_factor = options
    dtype, beta = loss.dtype, _beta(temperature, loss.dtype)
    unit = 1.0 if scaled else min(1 / temperature, torch.finfo(dtype).max)
    for z, v, losses, grads in _row_blocks(BLOCK, student, teacher, loss, grad):
        z, v = z.to(dtype), v.to(dtype)
        if teacher_factor != 1:
            v = times(OPERATIONS, v, teacher_factor)
        if formula == FORWARD:
            block_loss, slope, factor = loss_and_slope(OPERATIONS, z, v, beta, scaled)
            grads.copy_(slope * (factor * unit))
        else:
            block_loss, slope = divergence_and_slope(OPERATIONS, z, v, beta, scaled, formula)
            grads.copy_(slope * unit)
        losses.copy_(block_loss.squeeze(-1))


def _row_blocks(
    size: int, student: Tensor, teacher: Tensor, loss: Tensor, grad: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Cut the batch into blocks of rows of about so many numbers."""
    classes = student.shape[-1]
    z, v, g = (x.reshape(-1, classes) for x in (student, teacher, grad))
    step = len(z) if torch.compiler.is_compiling() else max(1, size // classes)
    blocks = (x.split(max(step, 1)) for x in (z, v, loss.reshape(-1), g))
    return zip(*blocks, strict=True)


def _numpy_can_read(*tensors: Tensor) -> bool:
    """Whether NumPy can share the tensors' memory: eager, on a CPU, and as it is stored."""
    return not torch.compiler.is_compiling() and all(
        type(x) in (Tensor, torch.nn.Parameter) and x.device.type == "cpu" and not x.is_neg()
        for x in tensors
    )


class _Selection:
    """All entries are computed, and chosen from afterwards."""

    def __init__(self, condition: Tensor) -> None:
        self.condition = condition

    def take(self, rows: Tensor) -> Tensor:
        return rows

    def take_column(self, column: Tensor) -> Tensor:
        return column

    def put(self, rows: Tensor, values: Tensor) -> Tensor:
        return torch.where(self.condition, values, rows)


class _Operations:
    """The operations of `_formulas.py` in PyTorch, with no branch on a tensor's values."""

    exp, exp_, log = staticmethod(torch.exp), staticmethod(torch.exp_), staticmethod(torch.log)
    log1p, where = staticmethod(torch.log1p), staticmethod(torch.where)
    expm1 = staticmethod(torch.expm1)
    clip = staticmethod(torch.clip)
    select = _Selection
    expects_excluded = True

    @staticmethod
    def row_sum(x: Tensor) -> Tensor:
        """Add up each row so that small numbers are not rounded away beside a large one.

        In float64 if the dtype is float32 and the device has float64, else in groups of four.
        """
        if x.dtype == torch.float32 and x.device.type != "mps":
            return x.sum(-1, keepdim=True, dtype=torch.float64).float()
        while x.shape[-1] > 4:
            whole = x.shape[-1] // 4 * 4
            fours = x[..., :whole].unflatten(-1, (-1, 4)).sum(-1)
            x = torch.cat([fours, x[..., whole:]], -1)
        return x.sum(-1, keepdim=True)

    @staticmethod
    def row_max(x: Tensor) -> Tensor:
        return x.amax(-1, keepdim=True)

    @staticmethod
    def at_top(v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        v_top, top = v.max(-1, keepdim=True)
        return v_top, z.gather(-1, top)

    @staticmethod
    def normalizer(exponentials: Tensor) -> Tensor:
        return _Operations.row_sum(exponentials)

    @staticmethod
    def dtype_name(x: Tensor) -> str:
        return str(x.dtype).removeprefix("torch.")

    @staticmethod
    def any(condition: Tensor) -> bool:
        return True

    @staticmethod
    def all_within(x: Tensor, bound: float) -> bool:
        return False


OPERATIONS = cast(Operations, _Operations())


def _beta(temperature: float, dtype: torch.dtype) -> float:
    info = torch.finfo(dtype)
    return inverse_temperature(temperature, info.tiny, info.max)
