"""TRL: the trainers for on-policy distillation."""

import torch
from trl.experimental.gkd import GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

from audits.case import FLOAT32_DIGITS, case
from kd_notes.divergences import JensenShannon
from kd_notes.torch import kd_loss

LIBRARY = "TRL"
DISTRIBUTION = "trl"
IN_SHORT = "OK at τ = 1, the default of both trainers' losses, which have no factor τ²."


@case()
def gkd(student, teacher, labels, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, its default `beta=0.5`

    `GKDTrainer` calls it with labels and always at τ = 1: `GKDConfig.temperature` only samples.
    What follows of the temperature is for those who call the function themselves. Multiply by
    τ² to keep the size of the gradient, and by 1/(β(1-β)), here 4, for that of the KL
    divergence; near its ends, `beta` acts as a smaller learning rate. Without labels it divides
    a batch of sequences by the number of sequences.
    """
    return GKDTrainer.generalized_jsd_loss(student, teacher, labels, temperature=temperature)


@gkd.equals
def _(student, teacher, labels, temperature):
    divergence = JensenShannon(0.5, normalized=False)
    return kd_loss(student, teacher, temperature, divergence=divergence, scaled=False).mean()


@case()
def gkd_forward(student, teacher, labels, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, `beta=0`

    As `beta` approaches 0 the loss tends to 0; at 0 it is the KL divergence.
    """
    return GKDTrainer.generalized_jsd_loss(
        student, teacher, labels, beta=0, temperature=temperature
    )


@gkd_forward.equals
def _(student, teacher, labels, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean()


@case()
def gkd_reverse(student, teacher, labels, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, `beta=1`"""
    return GKDTrainer.generalized_jsd_loss(
        student, teacher, labels, beta=1, temperature=temperature
    )


@gkd_reverse.equals
def _(student, teacher, labels, temperature):
    return kd_loss(student, teacher, temperature, divergence="reverse_kl", scaled=False).mean()


@case(FLOAT32_DIGITS)
def distillation_trainer(student, teacher, temperature=4.0):
    """The loss of `DistillationTrainer`, its default `beta=1`

    The trainer does pass its `temperature`, 1 by default, to the loss. The gradient shrinks as
    it rises: multiply the loss by τ², or raise the learning rate.
    """
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    keep = torch.ones(student.shape[:-1])
    loss, _, _ = _chunked_divergence_loss(
        student, teacher, head, head, keep, beta=1.0, temperature=temperature
    )
    return loss


@distillation_trainer.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, divergence="reverse_kl", scaled=False).mean()
