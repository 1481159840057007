"""The library torchtune."""

from torch.distributions import Categorical

from audits.case import FLOAT32_DIGITS, case
from audits.imports import without_init
from kd_notes.torch import KnowledgeDistillationLoss, kd_loss

without_init("torchtune", "torchtune.modules", "torchtune.modules.loss")
from torchtune.modules.loss.ce_chunked_output_loss import CEWithChunkedOutputLoss  # noqa: E402
from torchtune.modules.loss.kd_losses import (  # noqa: E402
    ForwardKLLoss,
    ForwardKLWithChunkedOutputLoss,
    ReverseKLLoss,
    SymmetricKLLoss,
)

LIBRARY = "torchtune"
DISTRIBUTION = "torchtune"
IN_SHORT = (
    "OK, at τ = 1 only: half cross-entropy on the label and half on the teacher, by default."
)


@case(FLOAT32_DIGITS, temperature=1.0)
def recipe(student, teacher, labels, alpha=0.3):
    """The loss of the recipes, with `ForwardKLWithChunkedOutputLoss`

    The recipe's `kd_ratio`, 0.5 by default, is our alpha. The chunks, of which the call below
    has one, save memory and change nothing.
    """
    kd = ForwardKLWithChunkedOutputLoss(1)([student[None]], [teacher[None]], labels[None])
    hard = CEWithChunkedOutputLoss(1)([student[None]], labels[None])
    return (1 - alpha) * hard + alpha * kd


@recipe.equals
def _(student, teacher, labels, alpha):
    entropy = Categorical(logits=teacher).entropy().mean()
    return KnowledgeDistillationLoss(1.0, alpha)(student, teacher, labels) + alpha * entropy


@case(FLOAT32_DIGITS, temperature=1.0)
def forward(student, teacher, labels):
    """`ForwardKLLoss`

    It has no temperature: divide both logits by τ before the call, and multiply the loss by τ².
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


@case(
    FLOAT32_DIGITS,
    headline="Jeffreys divergence (half of forward KL + reverse KL) + half of the teacher's "
    "entropy at τ = 1, averaged over the examples",
    temperature=1.0,
)
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
