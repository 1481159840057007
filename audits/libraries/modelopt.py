"""NVIDIA ModelOpt."""

from audits.case import case
from audits.imports import without_init
from kd_notes.torch import kd_loss

without_init("modelopt", "modelopt.torch", "modelopt.torch.distill")
from modelopt.torch.distill.losses import LogitsDistillationLoss  # noqa: E402

LIBRARY = "ModelOpt"
DISTRIBUTION = "nvidia-modelopt"
IN_SHORT = (
    'To change: by default the mean runs over the classes too. Pass `reduction="batchmean"`.'
)


@case()
def logits(student, teacher, temperature=4.0):
    """`LogitsDistillationLoss`, its default reduction

    Pass `reduction="batchmean"`.
    """
    return LogitsDistillationLoss(temperature)(student, teacher)


@logits.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean() / student.shape[-1]


@case()
def logits_batchmean(student, teacher, temperature=4.0):
    """`LogitsDistillationLoss`, `reduction="batchmean"`"""
    loss = LogitsDistillationLoss(temperature, reduction="batchmean")
    return loss(student, teacher)


@logits_batchmean.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()
