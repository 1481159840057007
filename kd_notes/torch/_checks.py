"""Every check of a tensor, and its message."""

from __future__ import annotations

import torch
from torch import Tensor


def require_logits(student: Tensor, teacher: Tensor) -> None:
    for name, logits in {"student_logits": student, "teacher_logits": teacher}.items():
        _require_real(name, logits)
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


def _require_real(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a tensor of real floating-point numbers; got {got}")


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


def require_top_k(
    student: Tensor, values: Tensor, indices: Tensor, log_normalizer: Tensor | None
) -> None:
    """Refuse what is no teacher of k classes for the student's logits."""
    named = {"student_logits": student, "teacher_values": values}
    if log_normalizer is not None:
        named["teacher_log_normalizer"] = log_normalizer
    for name, tensor in named.items():
        _require_real(name, tensor)
    if not isinstance(indices, Tensor) or indices.is_floating_point() or indices.is_complex():
        got = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"teacher_indices must be a tensor of integers; got {got}")
    _require_shapes_of_top_k(student, values, indices)
    batch, num_classes = student.shape[:-1], student.shape[-1]
    if log_normalizer is not None and log_normalizer.shape != batch:
        raise ValueError(
            f"teacher_log_normalizer must have the shape of the batch, {tuple(batch)}; "
            f"got {tuple(log_normalizer.shape)}"
        )
    is_inside = (indices >= 0) & (indices < num_classes)
    requirement = f"teacher_indices must be class numbers in 0..{num_classes - 1}"
    require_rows(is_inside.all(-1), requirement, indices)
    in_order = indices.sort(-1).values
    are_distinct = (in_order[..., 1:] != in_order[..., :-1]).all(-1)
    require_rows(are_distinct, "teacher_indices must be distinct within a row", indices)


def _require_shapes_of_top_k(student: Tensor, values: Tensor, indices: Tensor) -> None:
    shapes = [tuple(x.shape) for x in (student, values, indices)]
    if (
        not all(shapes)
        or values.shape != indices.shape
        or student.shape[:-1] != values.shape[:-1]
        or not 0 < values.shape[-1] <= student.shape[-1]
    ):
        raise ValueError(
            "student_logits must have shape (..., K), and teacher_values and teacher_indices "
            f"shape (..., k) with 0 < k <= K; got shapes {shapes[0]}, {shapes[1]} and {shapes[2]}"
        )


def require_rows(holds: Tensor, requirement: str, rows: Tensor) -> None:
    """Refuse rows `(..., m)`, or numbers `(...)`, where a condition `(...)` does not hold."""
    if holds.device.type != "cpu" or torch.compiler.is_compiling():  # no branch on values
        torch._assert_async(holds.all(), requirement)
    elif not holds.all():
        batch, first = tuple(holds.shape), rows[~holds][0]
        raise ValueError(f"{requirement}; got {first.tolist()} in a batch of shape {batch}")
