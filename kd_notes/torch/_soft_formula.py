"""The soft loss as a formula of rows: at one temperature, with all its derivatives."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kd_notes._f_divergences import FORWARD, Formula, swapped
from kd_notes._formulas import at_own_temperature, times
from kd_notes.torch._curvature import by_hessian, by_mixed_hessian
from kd_notes.torch._drivers import by_numpy, by_torch, numpy_can_read, triton_kernel
from kd_notes.torch._operations import OPERATIONS, inverse, wide
from kd_notes.torch._row_loss import loss_and_slope, row_loss


class SoftFormula(NamedTuple):
    """A `RowFormula` of both networks' logits.

    The teacher's derivatives, which a learned temperature needs, are for temperature 1.
    """

    temperature: float
    scaled: bool
    formula: Formula
    teacher_factor: float

    def losses(self, student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the loss of each row, 0 if it is not kept; the teacher gets no gradient."""
        return row_loss(student, teacher, kept, self, is_fixed=True)

    def evaluate(self, student: Tensor, teacher: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, and Eq. 10 or the gradients of another divergence."""
        dtype = wide(torch.promote_types(student.dtype, teacher.dtype))
        loss = torch.empty(student.shape[:-1], dtype=dtype, device=student.device)
        grad = torch.empty(student.shape, dtype=dtype, device=student.device)
        if numpy_can_read(student, teacher):
            compute = by_numpy
        else:
            compute = triton_kernel(student, teacher, self) or by_torch
        compute(student, teacher, self, loss=loss, grad=grad)
        return loss, grad

    @property
    def hessian_needs_other(self) -> bool:
        """Whether the Hessian depends on the teacher, as that of the forward KL does not."""
        return self.formula != FORWARD

    def by_hessian(self, student: Tensor, teacher: Tensor | None, u: Tensor) -> Tensor:
        """Return rows u times the Hessian, which is diag q − q qᵀ for the forward KL."""
        beta, student = inverse(self.temperature, u.dtype), student.to(u.dtype)
        if self.formula == FORWARD:
            below_top = student - student.amax(-1, keepdim=True)
            q = torch.softmax(times(OPERATIONS, below_top, beta), -1)
            result = q * (u - (q * u).sum(-1, keepdim=True))
        else:
            assert teacher is not None
            teacher = at_own_temperature(OPERATIONS, teacher.to(u.dtype), self.teacher_factor)
            result = by_hessian(student, teacher, u, beta, self.formula)
        if not self.scaled:
            return result / self.temperature / self.temperature
        return result / self.temperature if self.power == 1 else result

    def slope_of_other(self, student: Tensor, teacher: Tensor, kept: Tensor | None) -> Tensor:
        """Return the gradients for the teacher: those of the networks exchanged."""
        return loss_and_slope(teacher, student, kept, self.swapped())[1]

    def mixed_by_student(self, student: Tensor, teacher: Tensor, u: Tensor) -> Tensor:
        """Return ∂(u · gradient for the student)/∂teacher."""
        return by_mixed_hessian(student, teacher, u, 1.0, self.formula)

    def mixed_by_other(self, student: Tensor, teacher: Tensor, u: Tensor) -> Tensor:
        """Return ∂(u · gradient for the teacher)/∂student."""
        return self.swapped().mixed_by_student(teacher, student, u)

    def swapped(self) -> SoftFormula:
        """Return the formula for the networks exchanged."""
        return self._replace(formula=swapped(self.formula))

    @property
    def power(self) -> int:
        """The power of the temperature by which the scaled loss is multiplied."""
        return 1 if self.formula.name == "total_variation" else 2
