"""Distributed tensors: a loss of each row is computed by every process from its own rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Size, Tensor


def row_by_row(compute: Callable[..., Any], student: Tensor, *others: Tensor | None) -> Any:
    """Return what `compute` returns, a number for each row or several, of any tensors."""
    if not hasattr(student, "placements"):
        return compute(student, *others)
    local = [x if x is None else _local(x, student) for x in (student, *others)]
    results = compute(*local)
    if isinstance(results, Tensor):
        return _distributed(results, student)
    return [x if x is None else _distributed(x, student) for x in results]


def _local(tensor: Tensor, student: Any) -> Tensor:
    """Return the local rows of a tensor that is placed as the student's logits are."""
    placements = getattr(tensor, "placements", None)
    splits_classes = any(
        x.is_partial() or x.is_shard(student.ndim - 1) for x in student.placements
    )
    if placements != student.placements or splits_classes:
        raise ValueError(
            "distributed logits, labels and masks must have the same placements, which do not "
            "divide the classes: redistribute them; got "
            f"{student.placements} and {placements or 'a tensor that is not distributed'}"
        )
    local: Tensor = tensor.to_local()  # type: ignore[attr-defined]
    return local


def _distributed(losses: Tensor, student: Any) -> Tensor:
    from torch.distributed.tensor import DTensor

    shape = student.shape[:-1]
    strides = [Size(shape[i + 1 :]).numel() for i in range(len(shape))]
    result: Tensor = DTensor.from_local(
        losses,
        student.device_mesh,
        student.placements,
        run_check=False,
        shape=shape,
        stride=tuple(strides),
    )
    return result
