"""Every check of a tensor, and its message."""

from __future__ import annotations

import torch
from torch import Tensor


def require_logits(student: Tensor, teacher: Tensor) -> None:
    for name, logits in {"student_logits": student, "teacher_logits": teacher}.items():
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise TypeError(f"{name} must be a tensor of real floating-point numbers; got {got}")
    if student.shape != teacher.shape:
        raise ValueError(
            "student_logits and teacher_logits must have the same shape; "
            f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
        )
    if student.ndim == 0 or student.shape[-1] == 0:
        raise ValueError(
            "student_logits and teacher_logits must have shape (..., K) with at least one "
            f"class on the last axis; got shape {tuple(student.shape)}"
        )


def are_indices(labels: Tensor, logits: Tensor) -> bool:
    """Whether labels are class indices; refuse those that are neither these nor distributions."""
    if not isinstance(labels, Tensor) or labels.is_complex():
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of indices or of distributions; got {got}")
    if labels.shape == logits.shape:
        tolerance = 1e-2 if labels.dtype in (torch.float16, torch.bfloat16) else 1e-5
        is_wrong = (
            labels.sum(-1, dtype=torch.promote_types(labels.dtype, torch.float32)) - 1
        ).abs() > tolerance
        _require(~(is_wrong | (labels < 0).any(-1)), labels, "distributions over the last axis")
        return False
    if labels.shape == logits.shape[:-1] and not labels.is_floating_point():
        classes = logits.shape[-1]
        _require((labels >= 0) & (labels < classes), labels, f"indices in 0..{classes - 1}")
        return True
    raise ValueError(
        f"labels must be integer indices of shape {tuple(logits.shape[:-1])} or distributions "
        f"of shape {tuple(logits.shape)}; got {labels.dtype} of shape {tuple(labels.shape)}"
    )


def _require(holds: Tensor, labels: Tensor, what: str) -> None:
    if holds.device.type != "cpu" or torch.compiler.is_compiling():  # no branch on values
        torch._assert_async(holds.all(), f"labels must be {what}")
    elif not holds.all():
        first = labels[~holds][0]
        described = f"a sum of {first.sum():.6g} and a least entry of {first.min():.6g}"
        raise ValueError(
            f"labels must be {what}; got {described if first.ndim else first.item()} "
            f"in a tensor of shape {tuple(labels.shape)}"
        )
