"""The loss of distillation for PyTorch: a function and a module, with their own backward.

Folder: `_row_loss.py` makes a PyTorch function of the formula of a loss, with all derivatives.
There are two such formulas: `_soft_formula.py`, which `_drivers.py` computes from the core's
formulas, in NumPy or by PyTorch's `_operations.py`, or by the kernel of `_triton.py`; and
`_cross_entropy.py`. `_soft_loss.py` has the function for users, `_module.py` the module, and
`_topk.py` the loss of a teacher of whom only k classes are known. `_checks.py` refuses what they
cannot use.
"""

try:
    import torch as _torch  # noqa: F401
except ImportError as error:
    raise ImportError(
        'kd_notes.torch needs PyTorch; install it, or, in a clone, `pip install ".[torch]"`'
    ) from error

from kd_notes.torch._module import KnowledgeDistillationLoss
from kd_notes.torch._soft_loss import kd_loss
from kd_notes.torch._topk import topk_kd_loss

__all__ = ["KnowledgeDistillationLoss", "kd_loss", "topk_kd_loss"]
