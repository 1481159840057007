"""The loss of distillation for PyTorch: a function and a module, with their own backward.

Folder: `_soft_loss.py` drives the formulas of the core, `_module.py` mixes them with the
labels' cross-entropy, `_topk.py` applies them to a teacher of whom only k classes are known,
`_checks.py` refuses what they cannot use.
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
