"""The KD loss mixed with cross-entropy on the labels, as a PyTorch module."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from kd_notes._checks import as_alpha
from kd_notes._distillation import mixture
from kd_notes.divergences import Divergence
from kd_notes.torch._checks import are_indices, require_logits
from kd_notes.torch._soft_loss import Options, soft_loss, wide

REDUCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "mean": torch.mean,
    "sum": torch.sum,
    "none": lambda losses: losses,
}


class KnowledgeDistillationLoss(torch.nn.Module):
    r"""The KD loss mixed with cross-entropy on the labels, for a training loop.

    Parameters
    ----------
    temperature
        Of the soft term alone, greater than 0, `inf` allowed; the hard term is at 1.
    alpha
        Weight of the soft term, in [0, 1]; at 0 the result is the hard term, even if the soft
        term is `inf`.
    divergence, teacher_temperature
        Of the soft term, as `kd_loss`.
    scaled
        Whether the soft term is multiplied by temperature squared, as `kd_loss`.
    reduction
        `"mean"` over the examples, as PyTorch's `"batchmean"`; `"sum"` over them; or
        `"none"`, one loss per example.

    Raises
    ------
    ValueError
        If a temperature is not above 0, alpha is outside [0, 1], there is no such divergence
        or reduction, or the teacher's temperature is finite and the student's is not.
    TypeError
        If a temperature or alpha is not a real number, or `scaled` is not a bool.

    Notes
    -----
    :math:`(1-\alpha)\,\mathrm{CE}(y, p^s) + \alpha \tau^2\,\mathrm{KL}(p^t, p^s)`: with
    `scaled=False` and temperature 1, Eq. 13 of the note :cite:p:`Che21`.

    It is called as `loss(student_logits, teacher_logits, labels)`, with logits as `kd_loss`
    takes them, and labels that are class indices `(...)` of an integer dtype or
    distributions `(..., K)`. The result's dtype is what the logits' dtypes promote to, and
    float32 for half precision.

    No index is ignored: -100, which `torch.nn.functional.cross_entropy` skips by
    default, raises `ValueError`, as does every index outside 0..K-1, a row that is not a
    distribution, and a shape that does not match. To skip examples, select those that count
    before the call, or use `reduction="none"` with any valid label and a mask after it.
    In a compiled graph, and on a device other than the CPU, an invalid label fails
    an assertion on the device instead: Python would have to wait for the device to read it.

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
    """

    def __init__(
        self,
        temperature: float,
        alpha: float,
        *,
        divergence: str | Divergence = "forward_kl",
        teacher_temperature: float | None = None,
        scaled: bool = True,
        reduction: str = "mean",
    ) -> None:
        super().__init__()
        options = Options.checked(temperature, divergence, teacher_temperature, scaled)
        self.temperature = options.temperature
        self.alpha = as_alpha(alpha)
        self.divergence = divergence
        self.teacher_temperature = teacher_temperature
        self.scaled = options.scaled
        if reduction not in REDUCTIONS:
            raise ValueError(f"reduction must be one of {[*REDUCTIONS]}; got {reduction!r}")
        self.reduction = reduction

    def forward(self, student_logits: Tensor, teacher_logits: Tensor, labels: Tensor) -> Tensor:
        """Return the loss of a batch, reduced."""
        require_logits(student_logits, teacher_logits)
        options = Options.checked(
            self.temperature, self.divergence, self.teacher_temperature, self.scaled
        )
        soft = soft_loss(student_logits, teacher_logits, options)
        hard = _cross_entropy(student_logits, labels)
        return REDUCTIONS[self.reduction](mixture(self.alpha, hard, soft))

    def extra_repr(self) -> str:
        """Return the arguments, as a printed model shows them."""
        chosen = f"temperature={self.temperature}, alpha={self.alpha}, "
        if self.divergence != "forward_kl":
            chosen += f"divergence={self.divergence!r}, "
        if self.teacher_temperature is not None:
            chosen += f"teacher_temperature={self.teacher_temperature}, "
        return f"{chosen}scaled={self.scaled}, reduction={self.reduction!r}"


def _cross_entropy(logits: Tensor, labels: Tensor) -> Tensor:
    """Return Eq. 1, where a class of label 0 contributes 0 even if its probability is 0."""
    log_p = torch.log_softmax(logits, -1, dtype=wide(logits.dtype))
    if are_indices(labels, logits):
        return -log_p.gather(-1, labels.long().unsqueeze(-1)).squeeze(-1)
    return -(labels * log_p.masked_fill(labels == 0, 0)).sum(-1)
