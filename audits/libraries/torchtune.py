"""The library torchtune."""

from torch.distributions import Categorical

from audits.case import FLOAT32_DIGITS, case
from audits.imports import without_init
from kd_notes.torch import kd_loss

without_init("torchtune", "torchtune.modules", "torchtune.modules.loss")
from torchtune.modules.loss.kd_losses import (  # noqa: E402
    ForwardKLLoss,
    ReverseKLLoss,
    SymmetricKLLoss,
)

LIBRARY = "torchtune"
DISTRIBUTION = "torchtune"


@case(FLOAT32_DIGITS, temperature=1.0)
def forward(student, teacher, labels):
    """`ForwardKLLoss`

    It has no temperature: divide the logits by one and multiply the loss by its square.
    """
    return ForwardKLLoss()(student, teacher, labels)


@forward.equals
def _(student, teacher, labels):
    return (kd_loss(student, teacher) + Categorical(logits=teacher).entropy()).mean()


@case(FLOAT32_DIGITS, temperature=1.0)
def reverse(student, teacher, labels):
    """`ReverseKLLoss`"""
    return ReverseKLLoss()(student, teacher, labels)


@reverse.equals
def _(student, teacher, labels):
    return kd_loss(student, teacher, divergence="reverse_kl").mean()


@case(FLOAT32_DIGITS, temperature=1.0)
def symmetric(student, teacher, labels):
    """`SymmetricKLLoss`

    It is half of each of the other two, so that half of the teacher's entropy is left at a
    match.
    """
    return SymmetricKLLoss()(student, teacher, labels)


@symmetric.equals
def _(student, teacher, labels):
    kd = kd_loss(student, teacher, divergence="jeffreys")
    return (kd + Categorical(logits=teacher).entropy() / 2).mean()
