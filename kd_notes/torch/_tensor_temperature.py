"""A temperature that is a tensor: one for all examples or one for each, learned or not.

The logits are divided by it, by an operation that PyTorch differentiates, and compared at
temperature 1. So its gradient, Proposition 24, comes from those for both networks' logits.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor

from kd_notes._f_divergences import Formula
from kd_notes.torch._checks import as_torch_temperature, require_one_or_each
from kd_notes.torch._operations import wide
from kd_notes.torch._row_loss import row_loss
from kd_notes.torch._soft_formula import SoftFormula


class TensorTemperatures(NamedTuple):
    """The soft loss at the student's and the teacher's temperature, at least one a tensor."""

    student: float | Tensor
    teacher: float | Tensor
    scaled: bool
    formula: Formula

    @classmethod
    def checked(
        cls,
        temperature: float | Tensor,
        teacher_temperature: float | Tensor | None,
        scaled: bool,
        formula: Formula,
    ) -> TensorTemperatures:
        """Refuse what is no temperature."""
        of_student = as_torch_temperature(temperature, "temperature")
        if not isinstance(of_student, Tensor) and of_student == math.inf:
            raise ValueError(
                "temperature must be finite if teacher_temperature is a tensor; got inf"
            )
        if teacher_temperature is None:
            return cls(of_student, of_student, scaled, formula)
        of_teacher = as_torch_temperature(teacher_temperature, "teacher_temperature")
        return cls(of_student, of_teacher, scaled, formula)

    def losses(self, student: Tensor, teacher: Tensor, kept: Tensor | None = None) -> Tensor:
        """Return the loss of each row, 0 if it is not kept; the teacher gets no gradient."""
        dtype = wide(torch.promote_types(student.dtype, teacher.dtype))
        tau = _as_column("temperature", self.student, student, dtype)
        tau_teacher = _as_column("teacher_temperature", self.teacher, student, dtype)
        of_student = _ratio(student.to(dtype), tau, kept)
        of_teacher = _ratio(teacher.detach().to(dtype), tau_teacher, kept)
        soft = SoftFormula(1.0, False, self.formula, 1.0)
        loss = row_loss(of_student, of_teacher, kept, soft)
        return loss * tau[..., 0] ** soft.power if self.scaled else loss


def _as_column(
    name: str, temperature: float | Tensor, logits: Tensor, dtype: torch.dtype
) -> Tensor:
    """Return a temperature `(..., 1)`, to divide rows of logits by."""
    if not isinstance(temperature, Tensor):
        temperature = torch.tensor(temperature, dtype=dtype, device=logits.device)
    require_one_or_each(name, temperature, logits)
    if temperature.ndim == 0:  # which PyTorch combines with any device
        return temperature.to(logits.device, dtype).unsqueeze(-1)
    return temperature.to(dtype).unsqueeze(-1)


def _ratio(logits: Tensor, temperature: Tensor, kept: Tensor | None) -> Tensor:
    """Return logits over temperature, counted from the largest, which changes no loss.

    What is excluded (−inf) or not kept must not reach the temperature's gradient.
    """
    excluded = logits == -math.inf
    unused = excluded if kept is None else excluded | ~kept.unsqueeze(-1)
    largest = logits.detach().masked_fill(unused, -math.inf).amax(-1, keepdim=True)
    below_largest = (logits - largest).masked_fill(unused, 0)
    return (below_largest / temperature).masked_fill(excluded, -math.inf)
