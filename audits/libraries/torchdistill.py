"""The library torchdistill."""

from torchdistill.losses.mid_level import KDLoss

from audits.case import case
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss

LIBRARY = "torchdistill"
DISTRIBUTION = "torchdistill"
IN_SHORT = "OK with labels. Without them, or at `alpha=0`, `KDLoss` leaves out the factor τ²."
PATHS = ("student", "output", "teacher", "output")


@case()
def with_labels(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`KDLoss`

    Our alpha is one minus its own.
    """
    loss = KDLoss(*PATHS, temperature=temperature, alpha=alpha)
    return loss({"student": {"output": student}}, {"teacher": {"output": teacher}}, labels)


@with_labels.equals
def _(student, teacher, labels, temperature, alpha):
    return KnowledgeDistillationLoss(temperature, alpha=1 - alpha)(student, teacher, labels)


@case()
def without_labels(student, teacher, temperature=4.0):
    """`KDLoss`, `alpha=0` or no labels

    The factor of the temperature squared is then left out; multiply by it.
    """
    loss = KDLoss(*PATHS, temperature=temperature, alpha=0)
    return loss({"student": {"output": student}}, {"teacher": {"output": teacher}})


@without_labels.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean()
