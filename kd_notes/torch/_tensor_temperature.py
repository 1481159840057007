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
        pair = [_below_largest(x.to(dtype), kept) for x in (student, teacher.detach())]
        tau = _as_column("temperature", self.student, student, dtype)
        own = _as_column("teacher_temperature", self.teacher, student, dtype)
        if self.scaled and self.teacher is self.student:
            tau = own = _capped(tau, *pair)
        student, teacher = (
            (x / temperature).masked_fill(is_excluded, -math.inf)
            for (x, is_excluded), temperature in zip(pair, (tau, own), strict=True)
        )
        soft = SoftFormula(1.0, False, self.formula, 1.0)
        loss = row_loss(student, teacher, kept, soft, is_fixed=False)
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


def _below_largest(logits: Tensor, kept: Tensor | None) -> tuple[Tensor, Tensor]:
    """Return logits counted from the largest, which changes no loss; and which are excluded.

    What is excluded (−inf) or not kept is 0, since it must not reach the temperature's gradient.
    """
    is_excluded = logits == -math.inf
    is_unused = is_excluded if kept is None else is_excluded | ~kept.unsqueeze(-1)
    largest = logits.detach().masked_fill(is_unused, -math.inf).amax(-1, keepdim=True)
    return (logits - largest).masked_fill(is_unused, 0), is_excluded


def _capped(tau: Tensor, *pair: tuple[Tensor, Tensor]) -> Tensor:
    """Return the temperature, or a lower one at which the loss is its limit to the last digit.

    At a higher one the divergence would underflow, or temperature squared overflow. The limit is
    infinite where the networks exclude different classes.
    """
    logits, is_excluded = zip(*pair, strict=True)
    span = torch.maximum(*(x.detach().abs().amax(-1, keepdim=True) for x in logits))
    highest = span * (8 / torch.finfo(tau.dtype).eps) + 1
    is_apart = (is_excluded[0] ^ is_excluded[1]).any(-1, keepdim=True)
    return torch.where(is_apart, tau, torch.minimum(tau, highest))
