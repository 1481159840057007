"""Every check of a tensor, and its message."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor

from kd_notes._checks import as_count, as_integer, as_temperature
from kd_notes.torch._drivers import numpy_can_read


def with_classes_last(student: Tensor, teacher: Tensor, class_dim: int) -> tuple[Tensor, Tensor]:
    """Return both networks' logits, checked, with the classes on the last axis."""
    for name, logits in {"student_logits": student, "teacher_logits": teacher}.items():
        if not isinstance(logits, Tensor) or not logits.is_floating_point():
            got = logits.dtype if isinstance(logits, Tensor) else type(logits).__name__
            raise TypeError(f"{name} must be a tensor of real floating-point numbers; got {got}")
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
    _require((value > 0) & (value < math.inf), value, name, "finite and greater than 0")
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
    if are_indices:
        holds, what = (labels >= 0) & (labels < classes), f"indices in 0..{classes - 1}"
    else:
        tolerance = 1e-2 if labels.dtype in (torch.float16, torch.bfloat16) else 1e-5
        sums = labels.sum(-1, dtype=torch.promote_types(labels.dtype, torch.float32))
        holds = ~(((sums - 1).abs() > tolerance) | (labels < 0).any(-1))
        what = "distributions over the last axis"
    _require(holds if kept is None else holds | ~kept, labels, "labels", what)


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
    if value.ndim:
        raise ValueError(f"num_items must have shape (); got shape {tuple(value.shape)}")
    _require(value > 0, value, "num_items", "greater than 0")
    return value


def _require(holds: Tensor, tensor: Tensor, name: str, what: str) -> None:
    if torch.compiler.is_compiling():
        torch._assert_async(holds.all(), f"{name} must be {what}")
        return
    is_mapped = torch._C._functorch.is_functorch_wrapped_tensor(holds)
    while torch._C._functorch.is_functorch_wrapped_tensor(holds):  # by `torch.func`
        holds = torch._C._functorch.get_unwrapped(holds)
    if not numpy_can_read(holds):  # Python would have to wait for the values
        torch._assert_async(holds.all(), f"{name} must be {what}")
    elif not holds.all():
        got = "" if is_mapped else f"; got {_described(tensor[~holds][0])}"
        raise ValueError(f"{name} must be {what}{got} in a tensor of shape {tuple(tensor.shape)}")


def _described(entry: Tensor) -> str:
    if entry.ndim:
        return f"a sum of {entry.sum():.6g} and a least entry of {entry.min():.6g}"
    return str(entry.item())
