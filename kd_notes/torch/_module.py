"""The KD loss mixed with cross-entropy on the labels, as a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor

from kd_notes._checks import as_alpha, as_flag, as_integer
from kd_notes._distillation import mixture
from kd_notes._f_divergences import as_formula
from kd_notes.divergences import Divergence
from kd_notes.torch._checks import (
    as_num_items,
    as_torch_temperature,
    have_indices,
    require_labels,
    require_mask,
    with_classes_last,
)
from kd_notes.torch._cross_entropy import CrossEntropy
from kd_notes.torch._distributed import row_by_row
from kd_notes.torch._row_loss import row_loss
from kd_notes.torch._soft_loss import checked_formula

REDUCTIONS = ("mean", "sum", "none")


class LossTerms(NamedTuple):
    """The loss of a batch and its two terms, each reduced; None for one of weight 0."""

    loss: Tensor
    soft: Tensor | None
    hard: Tensor | None


class KnowledgeDistillationLoss(torch.nn.Module):
    r"""The KD loss mixed with cross-entropy on the labels, for a training loop.

    Parameters
    ----------
    temperature
        Of the soft term alone, greater than 0, `inf` allowed; the hard term is at 1. Or a
        tensor, as for `kd_loss`; a `torch.nn.Parameter` becomes a parameter of the module.
    alpha
        Weight of the soft term, in [0, 1]; at 0 the result is the hard term, even if the soft
        term is `inf`; at 1 no labels are needed.
    divergence, teacher_temperature
        Of the soft term, as `kd_loss`.
    scaled
        Whether the soft term is multiplied by temperature squared, as `kd_loss`.
    reduction
        `"mean"` over the examples that are kept, as PyTorch's `"batchmean"`; `"sum"` over
        them; or `"none"`, one loss per example, 0 for one that is not kept.
    ignore_index
        The label of examples, or tokens, that are not kept.
    class_dim
        The axis of the classes, if it is not the last: 1 for images `(N, K, H, W)`.

    Raises
    ------
    ValueError
        If a temperature is not above 0, alpha is outside [0, 1], there is no such divergence
        or reduction, or the teacher's temperature is finite and the student's is not.
    TypeError
        If a temperature or alpha is not a real number, `scaled` is not a bool, or
        `ignore_index` or `class_dim` is not an integer.

    Notes
    -----
    :math:`(1-\alpha)\,\mathrm{CE}(y, p) + \alpha \tau^2\,\mathrm{KL}(p^t, p^s)`, where :math:`p`
    is the student's softmax at temperature 1, and :math:`p^s` and :math:`p^t` are at
    :math:`\tau`: with `scaled=False` and temperature 1, Eq. 13 of the note :cite:p:`Che21`.

    It is called as `loss(student_logits, teacher_logits, labels)`, with logits as `kd_loss`
    takes them, and labels that are class indices `(...)` of an integer dtype or
    distributions `(..., K)`. The result's dtype is what the logits' dtypes promote to, and
    float32 for half precision. `loss.terms(...)`, of the same arguments, also returns both
    terms, for a log.

    An example is kept if its label is not `ignore_index` and `mask`, a bool tensor `(...)`, is
    True for it; what the others hold, even nan, has no influence. With gradient
    accumulation, give `num_items`, the number of tokens that are kept in all batches of a step,
    at least 1: the mean is then the sum over `num_items`. If nothing is kept, the loss is 0, and
    so is its gradient.

    Other indices outside 0..K-1 raise `ValueError`, as does a row that is not a distribution.
    In a compiled graph, and on a device other than the CPU, an invalid label fails
    an assertion on the device instead: Python would have to wait for the device to read it.

    Settings are attributes, which are checked when they are set, a temperature also beside the
    other: to reach infinity, set the teacher's first, and on the way back the student's. To change
    the temperature in each step of a compiled graph, make it a tensor: a number is compiled into
    it.

    Examples
    --------
    >>> import torch
    >>> from kd_notes.torch import KnowledgeDistillationLoss
    >>> loss = KnowledgeDistillationLoss(temperature=4, alpha=0.5)
    >>> loss
    KnowledgeDistillationLoss(temperature=4.0, alpha=0.5, scaled=True, reduction='mean')
    >>> student = torch.tensor([[1.0, 2.0, 0.0]], requires_grad=True)
    >>> teacher = torch.tensor([[3.0, 1.0, -1.0]])
    >>> value = loss(student, teacher, torch.tensor([0]))
    >>> round(value.item(), 6)
    1.255233
    >>> value.backward()
    >>> student.grad
    tensor([[-0.7376,  0.5567,  0.1809]])

    Padding is left out by its label:

    >>> padding = torch.full((1, 3), torch.nan)
    >>> padded = torch.cat([student, padding]), torch.cat([teacher, padding])
    >>> bool(loss(*padded, torch.tensor([0, -100])) == value)
    True
    """

    def __init__(
        self,
        temperature: float | Tensor,
        alpha: float,
        *,
        divergence: str | Divergence = "forward_kl",
        teacher_temperature: float | Tensor | None = None,
        scaled: bool = True,
        reduction: str = "mean",
        ignore_index: int = -100,
        class_dim: int = -1,
    ) -> None:
        super().__init__()
        self.temperature = temperature
        self.alpha = alpha
        self.divergence = divergence
        self.teacher_temperature = teacher_temperature
        self.scaled = scaled
        self.reduction = reduction
        self.ignore_index = ignore_index
        self.class_dim = class_dim

    def __setattr__(self, name: str, value: Any) -> None:
        """Check a setting before it is stored."""
        value = SETTINGS[name](value) if name in SETTINGS else value
        if name == "temperature":
            _require_pair(value, getattr(self, "teacher_temperature", None))
        if name == "teacher_temperature":
            _require_pair(self.temperature, value)
        super().__setattr__(name, value)

    def forward(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_items: int | Tensor | None = None,
    ) -> Tensor:
        """Return the loss of a batch, reduced."""
        inputs = student_logits, teacher_logits, labels
        return self.terms(*inputs, mask=mask, num_items=num_items).loss

    def terms(
        self,
        student_logits: Tensor,
        teacher_logits: Tensor,
        labels: Tensor | None = None,
        *,
        mask: Tensor | None = None,
        num_items: int | Tensor | None = None,
    ) -> LossTerms:
        """Return the loss of a batch, and its soft and hard term before they are weighted."""
        student, teacher = with_classes_last(student_logits, teacher_logits, self.class_dim)
        if isinstance(labels, Tensor) and labels.shape == student_logits.shape:
            labels = labels.movedim(self.class_dim, -1)
        if num_items is not None:
            num_items = as_num_items(num_items, self.reduction)
        temperatures = self.temperature, self.teacher_temperature
        *rows, kept = row_by_row(self._rows, student, teacher, labels, mask, *temperatures)
        return LossTerms(*(_reduced(x, kept, self.reduction, num_items) for x in rows))

    def _rows(
        self,
        student: Tensor,
        teacher: Tensor,
        labels: Tensor | None,
        mask: Tensor | None,
        temperature: float | Tensor,
        teacher_temperature: float | Tensor | None,
    ) -> tuple[Tensor | None, ...]:
        """Return each example's loss, its soft and its hard term, and whether it is kept."""
        are_indices = labels is not None and have_indices(labels, student)
        if labels is not None and are_indices:
            labels = labels.long()  # a narrow dtype may not hold the number of classes
        kept = self._kept(student, labels if are_indices else None, mask)
        soft = None
        if self.alpha > 0:
            settings = temperature, self.divergence, teacher_temperature, self.scaled
            soft = checked_formula(*settings).losses(student, teacher, kept)
        hard = self._hard(student, labels, kept, are_indices) if self.alpha < 1 else None
        return mixture(self.alpha, hard, soft), soft, hard, kept

    def _kept(self, logits: Tensor, indices: Tensor | None, mask: Tensor | None) -> Tensor | None:
        if mask is not None:
            require_mask(mask, logits)
        if indices is None:
            return mask
        is_labeled = indices != self.ignore_index
        return is_labeled if mask is None else is_labeled & mask

    def _hard(
        self, student: Tensor, labels: Tensor | None, kept: Tensor | None, are_indices: bool
    ) -> Tensor:
        if labels is None:
            raise ValueError(f"labels must be given unless alpha is 1; got alpha={self.alpha}")
        require_labels(labels, student.shape[-1], are_indices, kept)
        if are_indices and kept is not None:
            labels = labels.masked_fill(~kept, 0)
        return row_loss(student, labels, kept, CrossEntropy(are_indices), is_fixed=are_indices)

    def extra_repr(self) -> str:
        """Return the settings, as a printed model shows them, without those by default."""
        shown = {name: getattr(self, name) for name in SETTINGS}
        for name, default in DEFAULTS.items():
            if shown[name] == default:
                del shown[name]
        return ", ".join(f"{name}={_described(value)}" for name, value in shown.items())


def _require_pair(temperature: float | Tensor, teacher_temperature: float | Tensor | None) -> None:
    """Refuse a teacher's temperature that the student's does not go with."""
    checked_formula(temperature, "forward_kl", teacher_temperature, scaled=True)


def _described(value: Any) -> str:
    if isinstance(value, Tensor):
        return f"{type(value).__name__} of shape {tuple(value.shape)}"
    return repr(value)


def _reduced(
    losses: Tensor | None, kept: Tensor | None, reduction: str, num_items: int | Tensor | None
) -> Any:
    if losses is None or reduction == "none":
        return losses
    if reduction == "sum":
        return losses.sum()
    if num_items is None:
        num_items = max(losses.numel(), 1) if kept is None else kept.sum().clamp(min=1)
    return losses.sum() / num_items


def _as_reduction(value: str) -> str:
    if value not in REDUCTIONS:
        raise ValueError(f"reduction must be one of {[*REDUCTIONS]}; got {value!r}")
    return value


def _as_divergence(value: str | Divergence) -> str | Divergence:
    as_formula(value)
    return value


def _as_own_temperature(value: float | Tensor | None) -> float | Tensor | None:
    return None if value is None else as_torch_temperature(value, "teacher_temperature")


SETTINGS: dict[str, Callable[[Any], Any]] = {
    "temperature": as_torch_temperature,
    "alpha": as_alpha,
    "divergence": _as_divergence,
    "teacher_temperature": _as_own_temperature,
    "scaled": partial(as_flag, "scaled"),
    "reduction": _as_reduction,
    "ignore_index": partial(as_integer, "ignore_index"),
    "class_dim": partial(as_integer, "class_dim"),
}
DEFAULTS = {
    "divergence": "forward_kl",
    "teacher_temperature": None,
    "ignore_index": -100,
    "class_dim": -1,
}
