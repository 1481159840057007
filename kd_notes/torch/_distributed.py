"""Distributed tensors: a loss of each row is computed by every process from its own rows."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Size, Tensor


def row_by_row(compute: Callable[..., Any], student: Tensor, *others: Any) -> Any:
    """Return what `compute` returns, a number for each row or several.

    It is given the student's logits and others: tensors with a row or a number for each row, and
    what holds for all rows, such as a temperature.
    """
    if not hasattr(student, "placements"):
        return compute(student, *others)
    local = [_local(x, student) for x in (student, *others)]
    results = compute(*local)
    if isinstance(results, Tensor):
        return _distributed(results, student)
    return [x if x is None else _distributed(x, student) for x in results]


def _local(value: Any, student: Any) -> Any:
    """Return the local rows of a tensor that is placed as the student's logits are."""
    if not isinstance(value, Tensor):
        return value
    if value.ndim == 0:
        return _local_scalar(value, student)
    placements = getattr(value, "placements", None)
    splits_classes = any(
        x.is_partial() or x.is_shard(student.ndim - 1) for x in student.placements
    )
    if placements != student.placements or splits_classes:
        raise ValueError(
            "distributed logits, labels, masks and temperatures must have the same placements, "
            "which do not divide the classes: redistribute them; got "
            f"{student.placements} and {placements or 'a tensor that is not distributed'}"
        )
    return value.to_local()  # type: ignore[attr-defined]


def _local_scalar(value: Tensor, student: Any) -> Tensor:
    """Return a number that holds for all rows. Its gradient is a sum over processes."""
    from torch.distributed.tensor import Partial

    if not hasattr(value, "to_local"):
        return value
    of_gradient = [Partial() if x.is_shard() else x for x in student.placements]
    local: Tensor = value.to_local(grad_placements=of_gradient)
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
