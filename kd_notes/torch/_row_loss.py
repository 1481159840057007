"""A loss of each row that brings its own gradient, as a PyTorch function."""

from __future__ import annotations

from typing import Any, Protocol

import torch
from torch import Tensor
from torch._C._autograd import _top_saved_tensors_default_hooks
from torch._C._functorch import TransformType

from kd_notes.torch._drivers import are_eager, multiply_rows, numpy_can_read


class RowFormula(Protocol):
    """How a row of student logits is compared with another: the teacher's logits, or labels.

    All but `evaluate` consist of operations that PyTorch can differentiate.
    """

    def evaluate(self, student: Tensor, other: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses `(...)` and their gradients `(..., K)` for the student's logits."""

    @property
    def hessian_needs_other(self) -> bool:
        """Whether the Hessian depends on the other input."""

    def by_hessian(self, student: Tensor, other: Tensor | None, u: Tensor) -> Tensor:
        """Return rows u times the Hessian."""

    def slope_of_other(self, student: Tensor, other: Tensor, kept: Tensor | None) -> Tensor:
        """Return the gradients for the other input."""

    def mixed_by_student(self, student: Tensor, other: Tensor, u: Tensor) -> Tensor:
        """Return rows u times ∂(gradient for the student)/∂other."""

    def mixed_by_other(self, student: Tensor, other: Tensor, u: Tensor) -> Tensor:
        """Return ∂(gradient for the student)/∂other times rows u."""


def row_loss(
    student: Tensor, other: Tensor, kept: Tensor | None, formula: RowFormula, is_fixed: bool
) -> Tensor:
    """Return the loss of each row `(...)`, in float32 or wider, and 0 for rows not kept.

    Nothing that such a row holds, not even nan, reaches a derivative. The other input gets no
    gradient if it is fixed.
    """
    loss, slope = loss_and_slope(student, other.detach() if is_fixed else other, kept, formula)
    if not torch.compiler.is_exporting():
        return loss
    loss = loss + _zero_with_slope(student, slope)
    if is_fixed:
        return loss
    slope_of_other = formula.slope_of_other(student.detach(), other.detach(), kept)
    return loss + _zero_with_slope(other, slope_of_other)


def _zero_with_slope(rows: Tensor, slope: Tensor) -> Tensor:
    """Return 0 for each row, with a gradient that is given, and of which none is infinite.

    It stands for the backward pass in an exported graph, which has only the operations of a
    forward pass.
    """
    zero = torch.where(rows.isfinite(), rows - rows.detach(), 0)
    largest = torch.finfo(slope.dtype).max
    return (slope.clamp(-largest, largest) * zero).sum(-1)


def loss_and_slope(
    student: Tensor, other: Tensor, kept: Tensor | None, formula: RowFormula
) -> tuple[Tensor, Tensor]:
    """Return the losses and their gradients, both of which can be differentiated.

    In an exported graph they are constants.
    """
    if torch.compiler.is_exporting():
        return _RowLoss.forward(student.detach(), other.detach(), kept, formula)
    if formula.hessian_needs_other:
        other = savable(other)
    kept = kept if kept is None else savable(kept)
    # `torch.compile` does not trace a function that has a forward mode.
    function = _RowLoss if torch.compiler.is_compiling() else _EagerRowLoss
    results: tuple[Tensor, Tensor] = function.apply(student, other, kept, formula)
    return results


def savable(tensor: Tensor) -> Tensor:
    """Return a tensor, or a copy of one that autograd cannot save: from `torch.inference_mode`."""
    if torch.compiler.is_compiling() or not (torch.is_grad_enabled() and tensor.is_inference()):
        return tensor
    return tensor.clone()


class _RowLoss(torch.autograd.Function):
    """The loss and, as a second output, the gradient that its backward pass multiplies by.

    As an output, the gradient is part of the graph; so a second derivative is the backward
    pass of the gradient, and a third one that of the backward pass's own operations.
    """

    @staticmethod
    def forward(
        student: Tensor, other: Tensor, kept: Tensor | None, formula: RowFormula
    ) -> tuple[Tensor, Tensor]:
        loss, grad = formula.evaluate(student, other)
        if kept is not None and not (numpy_can_read(kept) and kept.all()):
            loss.masked_fill_(~kept, 0)
            grad.masked_fill_(~kept.unsqueeze(-1), 0)
        return loss, grad

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        student, other, kept, ctx.formula = inputs
        is_needed = ctx.formula.hessian_needs_other or other.requires_grad
        ctx.save_for_backward(student, output[1], other if is_needed else None, kept)
        ctx.set_materialize_grads(False)
        # What hooks pack, they may give out twice.
        ctx.may_reuse = are_eager(output[1]) and _top_saved_tensors_default_hooks(False) is None

    @staticmethod
    def backward(
        ctx: Any, loss_bar: Tensor | None, grad_bar: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None, None, None]:
        student, grad, other, kept = ctx.saved_tensors
        formula, of_student, of_other = ctx.formula, [], []
        if loss_bar is not None:
            of_student.append(_times_rows(loss_bar, grad, ctx.may_reuse))
        if grad_bar is not None:
            rows = _kept_rows(kept, student, other, grad_bar)
            of_student.append(formula.by_hessian(*rows))
        if ctx.needs_input_grad[1] and loss_bar is not None:
            of_other.append(loss_bar.unsqueeze(-1) * formula.slope_of_other(student, other, kept))
        if ctx.needs_input_grad[1] and grad_bar is not None:
            of_other.append(formula.mixed_by_student(*rows))
        return _total(of_student, student), _total(of_other, other), None, None


def _times_rows(factors: Tensor, grad: Tensor, may_reuse: bool) -> Tensor:
    """Return the rows of a saved gradient times a factor each, in its memory if that is free."""
    if not (may_reuse and are_eager(factors, grad)) or _is_kept():
        return factors.unsqueeze(-1) * grad
    grad = grad.detach()
    multiply_rows(grad, factors)
    return grad


def _is_kept() -> bool:
    """Whether the graph that is going backward will be used again, or differentiated."""
    keeps = torch._C._autograd._get_current_graph_task_keep_graph  # as donated buffers ask
    return torch.is_grad_enabled() or bool(keeps())


class _EagerRowLoss(_RowLoss):
    """The same, with what `torch.func` needs besides."""

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: tuple[Tensor, Tensor]) -> None:
        _RowLoss.setup_context(ctx, inputs, output)
        student, other, kept, _ = inputs
        ctx.save_for_forward(student, output[1], other, kept)

    @staticmethod
    def vmap(
        info: Any, in_dims: tuple[Any, ...], *inputs: Any
    ) -> tuple[tuple[Tensor, Tensor], tuple[int, int]]:
        """Take the mapped axis for one more axis of the batch."""
        *tensors, formula = inputs
        rows = [
            x if x is None else _mapped_axis_first(x, dim, info.batch_size)
            for x, dim in zip(tensors, in_dims, strict=False)
        ]
        return _EagerRowLoss.apply(*rows, formula), (0, 0)

    @staticmethod
    def jvp(
        ctx: Any, student_dot: Tensor | None, other_dot: Tensor | None, *_: None
    ) -> tuple[Tensor, Tensor]:
        _refuse_forward_over_forward()
        student, grad, other, kept = ctx.saved_tensors
        formula, of_loss, of_grad = ctx.formula, [], []
        if student_dot is not None:
            rows_of_other = other if formula.hessian_needs_other else None
            rows = _kept_rows(kept, student, rows_of_other, student_dot)
            of_loss.append((grad * student_dot).sum(-1))
            of_grad.append(formula.by_hessian(*rows))
        if other_dot is not None:
            rows = _kept_rows(kept, student, other, other_dot)
            slope = formula.slope_of_other(student, other, kept)
            of_loss.append((slope * other_dot).sum(-1))
            of_grad.append(formula.mixed_by_other(*rows))
        return _total(of_loss, grad), _total(of_grad, grad)


def _refuse_forward_over_forward() -> None:
    levels = torch._C._functorch.get_interpreter_stack() or []
    if sum(level.key() == TransformType.Jvp for level in levels) > 1:
        raise NotImplementedError(
            "forward mode inside forward mode, where PyTorch takes the second derivative of an "
            "autograd.Function for 0: use torch.func.hessian, or jacrev inside jacfwd or jvp"
        )


def _kept_rows(kept: Tensor | None, *rows: Tensor | None) -> list[Tensor | None]:
    """Return rows that are 0 where they are not kept."""
    if kept is None:
        return [*rows]
    left_out = ~kept.unsqueeze(-1)
    return [x if x is None else x.masked_fill(left_out, 0) for x in rows]


def _total(terms: list[Tensor], like: Tensor | None) -> Any:
    return sum(terms[1:], terms[0]).to(like.dtype) if terms and like is not None else None


def _mapped_axis_first(x: Tensor, dim: int | None, size: int) -> Tensor:
    return x.expand(size, *x.shape) if dim is None else x.movedim(dim, 0)
