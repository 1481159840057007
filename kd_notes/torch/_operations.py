"""The operations of `_formulas.py` in PyTorch, with no branch on a tensor's values."""

from __future__ import annotations

from typing import cast

import torch
from torch import Tensor

from kd_notes._formulas import Operations, inverse_temperature


class _Selection:
    """All entries are computed, and chosen from afterwards."""

    def __init__(self, condition: Tensor) -> None:
        self.condition = condition

    def take(self, rows: Tensor) -> Tensor:
        return rows

    def take_column(self, column: Tensor) -> Tensor:
        return column

    def put(self, rows: Tensor, values: Tensor) -> Tensor:
        return torch.where(self.condition, values, rows)


class _Operations:
    exp, exp_, log = staticmethod(torch.exp), staticmethod(torch.exp_), staticmethod(torch.log)
    log1p, where = staticmethod(torch.log1p), staticmethod(torch.where)
    expm1 = staticmethod(torch.expm1)
    clip = staticmethod(torch.clip)
    select = _Selection
    expects_excluded = True

    @staticmethod
    def row_sum(x: Tensor) -> Tensor:
        """Add up each row so that small numbers are not rounded away beside a large one.

        In float64 if the dtype is float32 and the device has float64, else in groups of four.
        """
        if x.dtype == torch.float32 and x.device.type != "mps":
            return x.sum(-1, keepdim=True, dtype=torch.float64).float()
        while x.shape[-1] > 4:
            whole = x.shape[-1] // 4 * 4
            fours = x[..., :whole].unflatten(-1, (-1, 4)).sum(-1)
            x = torch.cat([fours, x[..., whole:]], -1)
        return x.sum(-1, keepdim=True)

    @staticmethod
    def row_max(x: Tensor) -> Tensor:
        return x.amax(-1, keepdim=True)

    @staticmethod
    def at_top(v: Tensor, z: Tensor) -> tuple[Tensor, Tensor]:
        v_top, top = v.max(-1, keepdim=True)
        return v_top, z.gather(-1, top)

    @staticmethod
    def normalizer(exponentials: Tensor) -> Tensor:
        return _Operations.row_sum(exponentials)

    @staticmethod
    def dtype_name(x: Tensor) -> str:
        return str(x.dtype).removeprefix("torch.")

    @staticmethod
    def any(condition: Tensor) -> bool:
        return True

    @staticmethod
    def all_within(x: Tensor, bound: float) -> bool:
        return False


OPERATIONS = cast(Operations, _Operations())


def inverse(temperature: float, dtype: torch.dtype) -> float:
    """Return 1/temperature, at most the largest number of the dtype; 0 stands for infinity."""
    info = torch.finfo(dtype)
    return inverse_temperature(temperature, info.tiny, info.max)


def wide(dtype: torch.dtype) -> torch.dtype:
    """Return the dtype to compute in: float32, or wider."""
    return torch.promote_types(dtype, torch.float32)
