"""PyTorch's own losses, which most of the others call."""

import torch
import torch.nn.functional as F  # noqa: N812
from torch.distributions import Categorical

from audits.case import case
from kd_notes.torch import kd_loss

LIBRARY = "PyTorch"
DISTRIBUTION = "torch"
IN_SHORT = (
    'To change: by default the mean runs over the classes too. Pass `reduction="batchmean"`.'
)
LOGS_AND_PROBABILITIES = {"takes": ("log_probabilities", "probabilities")}


@case(**LOGS_AND_PROBABILITIES)
def batchmean(student, teacher):
    """`F.kl_div`, `reduction="batchmean"`

    The student's log-probabilities come first. Make one axis of all examples or tokens before
    the call.
    """
    return F.kl_div(student, teacher, reduction="batchmean")


@batchmean.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean()


@case(**LOGS_AND_PROBABILITIES)
def mean(student, teacher):
    """`F.kl_div`, its default reduction

    Pass `reduction="batchmean"`.
    """
    return F.kl_div(student, teacher)


@mean.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean() / student.shape[-1]


@case()
def three_lines(student, teacher, temperature=4.0):
    """The usual three lines"""
    log_q = F.log_softmax(student / temperature, dim=-1)
    p = F.softmax(teacher / temperature, dim=-1)
    return F.kl_div(log_q, p, reduction="batchmean") * temperature**2


@three_lines.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature).mean()


@case(takes=("logits", "probabilities"))
def soft_labels(student, teacher):
    """`F.cross_entropy` with the teacher's probabilities as labels

    Its gradient is that of the KL divergence at temperature 1.
    """
    return F.cross_entropy(student, teacher)


@soft_labels.equals
def _(student, teacher):
    kd = kd_loss(student, teacher, scaled=False)
    return (kd + Categorical(logits=teacher).entropy()).mean()


@case()
def squared_error(student, teacher):
    """`F.mse_loss` on logits

    At high temperatures the KL divergence becomes half the part of it that a softmax sees.
    """
    return F.mse_loss(student, teacher)


@squared_error.equals
def _(student, teacher):
    shift = (student - teacher).mean(-1)  # which no softmax sees
    return (2 * kd_loss(student, teacher, torch.inf) + shift**2).mean()
