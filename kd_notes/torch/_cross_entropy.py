"""Cross-entropy with labels as a formula of rows, with all its derivatives (Eq. 1 and 4)."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from kd_notes.torch._operations import OPERATIONS, wide


class CrossEntropy(NamedTuple):
    """A `RowFormula` of the student's logits and labels: indices `(...)` or rows `(..., K)`."""

    has_indices: bool

    def evaluate(self, student: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
        """Return the losses, where a class of label 0 contributes 0 even if q is 0 there."""
        if not self.has_indices:
            dtype = torch.promote_types(wide(student.dtype), labels.dtype)
            log_q = torch.log_softmax(student, -1, dtype=dtype)
            loss = -(labels * log_q.masked_fill(labels == 0, 0)).sum(-1)
            return loss, log_q.exp_() * labels.sum(-1, keepdim=True) - labels.to(dtype)
        log_q = torch.log_softmax(student, -1, dtype=wide(student.dtype))
        index = labels.unsqueeze(-1)
        loss = -log_q.gather(-1, index)
        others = log_q.exp_().scatter_(-1, index, 0)
        rest = OPERATIONS.row_sum(others)  # 1 − q, which a q near 1 does not tell
        loss = torch.where(rest < 0.5, -torch.log1p(-rest), loss)
        return loss.squeeze(-1), others.scatter_(-1, index, -rest)

    @property
    def hessian_needs_other(self) -> bool:
        """Whether the Hessian depends on the labels: their sum may differ from 1 by rounding."""
        return not self.has_indices

    def by_hessian(self, student: Tensor, labels: Tensor | None, u: Tensor) -> Tensor:
        """Return rows u times diag q − q qᵀ, and times the labels' sum."""
        q = torch.softmax(student, -1, dtype=u.dtype)
        result = q * (u - (q * u).sum(-1, keepdim=True))
        return result if labels is None else result * labels.sum(-1, keepdim=True)

    def slope_of_other(self, student: Tensor, labels: Tensor, kept: Tensor | None) -> Tensor:
        """Return −log q, and 0 where labels are not kept."""
        slope = -torch.log_softmax(student, -1, dtype=wide(student.dtype))
        return slope if kept is None else slope.masked_fill(~kept.unsqueeze(-1), 0)

    def mixed_by_student(self, student: Tensor, labels: Tensor, u: Tensor) -> Tensor:
        """Return ∂(u · gradient)/∂labels."""
        return (torch.softmax(student, -1, dtype=u.dtype) * u).sum(-1, keepdim=True) - u

    def mixed_by_other(self, student: Tensor, labels: Tensor, u: Tensor) -> Tensor:
        """Return ∂(gradient)/∂labels times rows u."""
        return torch.softmax(student, -1, dtype=u.dtype) * u.sum(-1, keepdim=True) - u
