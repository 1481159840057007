"""NVIDIA NeMo Automodel."""

from nemo_automodel.components.loss.kd_loss import KDLoss

from audits.case import FLOAT32_DIGITS, case
from kd_notes.torch import kd_loss

LIBRARY = "NeMo Automodel"
DISTRIBUTION = "nemo-automodel"
IN_SHORT = (
    "OK. `KDLoss` is the KL divergence with the factor τ², averaged over the tokens that count."
)


@case(FLOAT32_DIGITS)
def kd(student, teacher, labels, temperature=4.0):
    """`KDLoss`"""
    return KDLoss(temperature=temperature)(student, teacher, labels)


@kd.equals
def _(student, teacher, labels, temperature):
    return kd_loss(student, teacher, temperature).mean()
