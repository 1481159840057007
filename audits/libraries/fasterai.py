"""The library fasterai."""

import torch
from fasterai.distill import losses

from audits.case import case
from kd_notes.torch import kd_loss

LIBRARY = "fasterai"
DISTRIBUTION = "fasterai"
IN_SHORT = "OK. `SoftTarget` is the KL divergence with the factor τ²."


@case()
def soft_target(student, teacher, temperature=4.0):
    """`SoftTarget`"""
    return losses.SoftTarget(student, teacher, T=temperature)


@soft_target.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()


@case(temperature=1.0)
def mutual(student, teacher):
    """`Mutual`"""
    return losses.Mutual(student, teacher)


@mutual.equals
def _(student, teacher):
    return kd_loss(student, teacher).mean()


@case()
def logits(student, teacher):
    """`Logits`

    Twice the limit of the KL divergence, plus the squared difference of the means.
    """
    return losses.Logits(student, teacher)


@logits.equals
def _(student, teacher):
    shift = (student - teacher).mean(-1)  # which no softmax sees
    return (2 * kd_loss(student, teacher, torch.inf) + shift**2).mean()
