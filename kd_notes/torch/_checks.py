"""Every check of a tensor, and its message."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import is_functorch_wrapped_tensor

from kd_notes._checks import as_count, as_integer, as_temperature
from kd_notes.torch._drivers import numpy_can_read


def with_classes_last(student: Tensor, teacher: Tensor, class_dim: int) -> tuple[Tensor, Tensor]:
    """Return both networks' logits, checked, with the classes on the last axis."""
    for name, logits in {"student_logits": student, "teacher_logits": teacher}.items():
        _require_real(name, logits)
    class_dim = as_integer("class_dim", class_dim)
    if student.shape != teacher.shape:
        raise ValueError(_different_shapes(student, teacher, class_dim))
    is_axis = -student.ndim <= class_dim < student.ndim
    if not is_axis or student.shape[class_dim] == 0:
        shape = "(..., K)" if class_dim == -1 else f"(..., K, ...), K on axis {class_dim},"
        raise ValueError(
            f"student_logits and teacher_logits must have shape {shape} with at least one "
            f"class; got shape {tuple(student.shape)}"
        )
    return student.movedim(class_dim, -1), teacher.movedim(class_dim, -1)


def _require_real(name: str, tensor: Tensor) -> None:
    if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
        got = tensor.dtype if isinstance(tensor, Tensor) else type(tensor).__name__
        raise TypeError(f"{name} must be a tensor of real floating-point numbers; got {got}")
    if tensor.layout != torch.strided:
        raise TypeError(f"{name} must be a dense tensor; got layout {tensor.layout}")


def _different_shapes(student: Tensor, teacher: Tensor, class_dim: int) -> str:
    shapes = [list(logits.shape) for logits in (student, teacher)]
    got = f"got shapes {tuple(student.shape)} and {tuple(teacher.shape)}"
    if not all(-len(shape) <= class_dim < len(shape) for shape in shapes):
        return f"student_logits and teacher_logits must have the same shape; {got}"
    classes = [shape.pop(class_dim) for shape in shapes]
    if shapes[0] != shapes[1] or classes[0] == classes[1]:
        return f"student_logits and teacher_logits must have the same shape; {got}"
    larger = "student_logits" if classes[0] > classes[1] else "teacher_logits"
    return (
        f"student_logits and teacher_logits must have the same classes; {got}: if the last "
        f"{abs(classes[0] - classes[1])} classes of {larger} are padding, leave them out by "
        f"{larger}.narrow({class_dim}, 0, {min(classes)}); if the tokenizers differ, the "
        "classes must be matched first"
    )


def as_torch_temperature(value: Any, name: str = "temperature") -> float | Tensor:
    """Return a temperature as a Python float, or as the tensor that it is."""
    if not isinstance(value, Tensor):
        return as_temperature(value, name)
    if not value.is_floating_point():
        raise TypeError(f"{name} must be a floating-point tensor; got {value.dtype}")
    is_valid = (value > 0) & (value < math.inf)
    require_rows(is_valid, f"{name} must be finite and greater than 0", value)
    return value


def require_one_or_each(name: str, value: Tensor, logits: Tensor) -> None:
    """Refuse a tensor that holds neither one number nor one for each example."""
    batch = tuple(logits.shape[:-1])
    if value.ndim and tuple(value.shape) != batch:
        raise ValueError(
            f"{name} must have shape () or, with a number for each example, {batch}; "
            f"got shape {tuple(value.shape)}"
        )


def have_indices(labels: Tensor, logits: Tensor) -> bool:
    """Whether labels are class indices `(...)`; refuse what is no distribution `(..., K)`."""
    if not isinstance(labels, Tensor) or labels.is_complex():
        got = labels.dtype if isinstance(labels, Tensor) else type(labels).__name__
        raise TypeError(f"labels must be a tensor of indices or of distributions; got {got}")
    if labels.shape == logits.shape:
        return False
    if labels.shape == logits.shape[:-1] and not labels.is_floating_point():
        return True
    raise ValueError(
        f"labels must be integer indices of shape {tuple(logits.shape[:-1])} or distributions "
        f"of shape {tuple(logits.shape)}; got {labels.dtype} of shape {tuple(labels.shape)}"
    )


def require_labels(labels: Tensor, classes: int, are_indices: bool, kept: Tensor | None) -> None:
    """Refuse kept labels that are not in range, or are not distributions."""
    described: Callable[[Tensor], object] = Tensor.item
    if are_indices:
        holds = (labels >= 0) & (labels < classes)
        requirement = f"labels must be indices in 0..{classes - 1}"
    else:
        tolerance = 1e-2 if labels.dtype in (torch.float16, torch.bfloat16) else 1e-5
        sums = labels.sum(-1, dtype=torch.promote_types(labels.dtype, torch.float32))
        holds = ~(((sums - 1).abs() > tolerance) | (labels < 0).any(-1))
        requirement, described = "labels must be distributions over the last axis", _sum_and_least
    require_rows(holds if kept is None else holds | ~kept, requirement, labels, described)


def require_mask(mask: Tensor, logits: Tensor) -> None:
    shape = tuple(logits.shape[:-1])
    if not isinstance(mask, Tensor) or mask.dtype != torch.bool:
        got = mask.dtype if isinstance(mask, Tensor) else type(mask).__name__
        raise TypeError(f"mask must be a tensor of bools, True for what is kept; got {got}")
    if tuple(mask.shape) != shape:
        raise ValueError(f"mask must have shape {shape}; got shape {tuple(mask.shape)}")


def as_num_items(value: int | Tensor, reduction: str) -> int | Tensor:
    """Return a count of at least one, which may be a tensor of shape ()."""
    if reduction != "mean":
        raise ValueError(
            f"num_items, which a mean divides by, must not be given with reduction={reduction!r}; "
            f"got {value}"
        )
    if not isinstance(value, Tensor):
        return as_count("num_items", value)
    # Counted from distributed labels, it is distributed too.
    count: Tensor = value.full_tensor() if hasattr(value, "full_tensor") else value
    if count.ndim:
        raise ValueError(f"num_items must have shape (); got shape {tuple(count.shape)}")
    require_rows(count > 0, "num_items must be greater than 0", count)
    return count


def require_top_k(
    student: Tensor, values: Tensor, indices: Tensor, log_normalizer: Tensor | None
) -> None:
    """Refuse types and shapes that are no teacher of k classes for the student's logits."""
    named = {"student_logits": student, "teacher_values": values}
    if log_normalizer is not None:
        named["teacher_log_normalizer"] = log_normalizer
    for name, tensor in named.items():
        _require_real(name, tensor)
    if not isinstance(indices, Tensor) or not _holds_integers(indices):
        got = indices.dtype if isinstance(indices, Tensor) else type(indices).__name__
        raise TypeError(f"teacher_indices must be a tensor of integers; got {got}")
    _require_shapes_of_top_k(student, values, indices)
    batch = student.shape[:-1]
    if log_normalizer is not None and log_normalizer.shape != batch:
        raise ValueError(
            f"teacher_log_normalizer must have the shape of the batch, {tuple(batch)}; "
            f"got {tuple(log_normalizer.shape)}"
        )


def require_class_numbers(indices: Tensor, num_classes: int) -> None:
    """Refuse rows of int64 that hold another number, or one twice."""
    is_inside = (indices >= 0) & (indices < num_classes)
    requirement = f"teacher_indices must be class numbers in 0..{num_classes - 1}"
    require_rows(is_inside.all(-1), requirement, indices)
    in_order = indices.sort(-1).values
    are_distinct = (in_order[..., 1:] != in_order[..., :-1]).all(-1)
    require_rows(are_distinct, "teacher_indices must be distinct within a row", indices)


def _holds_integers(tensor: Tensor) -> bool:
    return not (tensor.is_floating_point() or tensor.is_complex() or tensor.dtype == torch.bool)


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


def require_rows(
    holds: Tensor,
    requirement: str,
    rows: Tensor,
    described: Callable[[Tensor], object] = Tensor.tolist,
) -> None:
    """Refuse rows `(..., m)`, or numbers `(...)`, where a condition `(...)` does not hold."""
    if hasattr(holds, "to_local"):  # each process checks its own
        holds, rows = holds.to_local(), rows.to_local()  # type: ignore[attr-defined]
    is_mapped = not torch.compiler.is_compiling() and is_functorch_wrapped_tensor(holds)
    while is_mapped and is_functorch_wrapped_tensor(holds):  # by `torch.func`
        holds = torch._C._functorch.get_unwrapped(holds)
    if not numpy_can_read(holds):  # Python must not branch on values that it has to wait for
        torch._assert_async(holds.all(), requirement)
    elif not holds.all():
        got = "" if is_mapped else f"; got {described(rows[~holds][0])}"
        raise ValueError(f"{requirement}{got} in a batch of shape {tuple(holds.shape)}")


def _sum_and_least(distribution: Tensor) -> str:
    least = distribution.min()
    return f"a sum of {distribution.sum():.6g} and a least entry of {least:.6g}"
