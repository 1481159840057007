"""Loss and gradient of rows of logits, by the NumPy core or by PyTorch's own operations."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from functools import cache
from importlib.util import find_spec
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch._C import _functorch as functorch
from torch.utils._python_dispatch import is_in_torch_dispatch_mode

from kd_notes._engine import in_parts
from kd_notes._f_divergences import FORWARD, divergence_and_slope
from kd_notes._formulas import at_own_temperature, loss_and_slope
from kd_notes._kernel import soft_loss_and_grad
from kd_notes.torch._operations import OPERATIONS, inverse

if TYPE_CHECKING:
    from kd_notes.torch._soft_formula import SoftFormula

BLOCK = 2**25  # numbers in a block of rows; the formulas hold about ten such blocks at a time
SMALL_BLOCK = 2**20  # where a block is converted for the NumPy core
GPU = "cuda"  # where Triton compiles for, also if the GPU is AMD's
TRITON_DTYPES = (torch.float32, torch.bfloat16, torch.float16)


def numpy_can_read(*tensors: Tensor) -> bool:
    """Whether NumPy can share the tensors' memory: eager, on a CPU, and as it is stored."""
    return are_eager(*tensors) and all(x.device.type == "cpu" for x in tensors)


def are_eager(*tensors: Tensor) -> bool:
    """Whether the tensors' memory holds their values: not traced, batched or of a subclass."""
    is_traced = torch.compiler.is_compiling() or torch._C._get_tracing_state() is not None
    return not (is_traced or is_in_torch_dispatch_mode()) and all(
        type(x) in (Tensor, torch.nn.Parameter)
        and not x.is_neg()
        and not functorch.is_functorch_wrapped_tensor(x)
        and not functorch.is_legacy_batchedtensor(x)
        for x in tensors
    )


def triton_kernel(
    student: Tensor, teacher: Tensor, how: SoftFormula
) -> Callable[..., None] | None:
    """Return the driver of the Triton kernel, if it is asked for and serves such tensors.

    It is asked for by the environment variable `KD_NOTES_TRITON`, since it has not been run on
    a GPU yet.
    """
    serves = (
        are_eager(student, teacher)
        and os.environ.get("KD_NOTES_TRITON") == "1"
        and how.formula == FORWARD
        and inverse(how.temperature, torch.float32) > 0
        and student.device.type == GPU
        and student.device == teacher.device
        and all(x.dtype in TRITON_DTYPES and x.stride(-1) == 1 for x in (student, teacher))
    )
    return _import_triton_kernel() if serves else None


@cache
def _import_triton_kernel() -> Callable[..., None] | None:
    if find_spec("triton") is None:
        return None
    from kd_notes.torch._triton import by_triton

    return by_triton


def by_numpy(
    student: Tensor, teacher: Tensor, how: SoftFormula, *, loss: Tensor, grad: Tensor
) -> None:
    """Fill loss and gradient from the NumPy core, which reads and writes the tensors' memory."""
    if torch.bfloat16 in (student.dtype, teacher.dtype):  # NumPy has no such dtype
        for z, v, losses, grads in _row_blocks(SMALL_BLOCK, student, teacher, loss, grad):
            by_numpy(z.float(), v.float(), how, loss=losses, grad=grads)
        return
    soft_loss_and_grad(
        student.detach().numpy(),
        teacher.detach().numpy(),
        **how._asdict(),
        loss=loss.numpy(),
        grad=grad.numpy(),
    )


def multiply_rows(rows: Tensor, factors: Tensor) -> None:
    """Multiply each row by a factor, in place; on a CPU in the threads of the NumPy core.

    PyTorch's own would then wait, and not sleep, while those compute the next batch.
    """
    if not (numpy_can_read(rows, factors) and rows.is_contiguous()):
        rows.mul_(factors.unsqueeze(-1))
        return
    numbers = rows.numpy().reshape(-1, rows.shape[-1])
    columns = factors.detach().numpy().reshape(-1, 1)

    def multiply(part: slice) -> None:
        with np.errstate(all="ignore"):
            np.multiply(numbers[part], columns[part], out=numbers[part])

    in_parts(multiply, *numbers.shape)
    torch.autograd.graph.increment_version(rows)


def by_torch(
    student: Tensor, teacher: Tensor, how: SoftFormula, *, loss: Tensor, grad: Tensor
) -> None:
    """Fill loss and gradient by PyTorch's operations, without a branch on a tensor's values."""
    temperature, scaled, formula, teacher_factor = how
    dtype, beta = loss.dtype, inverse(temperature, loss.dtype)
    unit = 1.0 if scaled else min(1 / temperature, torch.finfo(dtype).max)
    for z, v, losses, grads in _row_blocks(BLOCK, student, teacher, loss, grad):
        z, v = z.to(dtype), v.to(dtype)
        if teacher_factor != 1:
            v = at_own_temperature(OPERATIONS, v, teacher_factor)
        if formula == FORWARD and beta > 0:
            block_loss, slope, factor = loss_and_slope(OPERATIONS, z, v, beta, scaled)
            grads.copy_(slope * (factor * unit))
        else:
            block_loss, slope = divergence_and_slope(OPERATIONS, z, v, beta, scaled, formula)
            grads.copy_(slope * unit)
        losses.copy_(block_loss.squeeze(-1))


def _row_blocks(
    size: int, student: Tensor, teacher: Tensor, loss: Tensor, grad: Tensor
) -> Iterator[tuple[Tensor, ...]]:
    """Cut the batch into blocks of rows of about so many numbers."""
    classes = student.shape[-1]
    z, v, g = (x.reshape(-1, classes) for x in (student, teacher, grad))
    rows = z, v, loss.reshape(-1), g
    if torch.compiler.is_compiling():  # where the number of rows may be a symbol
        return iter([rows])
    return zip(*(x.split(max(1, size // classes)) for x in rows), strict=True)
