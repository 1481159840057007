"""TRL: the trainers for on-policy distillation."""

import torch
from trl.experimental.gkd import GKDTrainer
from trl.trainer.distillation_trainer import _chunked_divergence_loss

from audits.case import FLOAT32_DIGITS, case
from kd_notes.divergences import JensenShannon
from kd_notes.torch import kd_loss

LIBRARY = "TRL"
DISTRIBUTION = "trl"


@case()
def gkd(student, teacher, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, its default `beta=0.5`

    Multiply by the square of the temperature to keep the size of the gradient, and by 4 for
    that of the KL divergence; near its ends, `beta` acts as a smaller learning rate. Give it
    the labels: without them it divides a batch of sequences by the number of sequences.
    """
    return GKDTrainer.generalized_jsd_loss(student, teacher, temperature=temperature)


@gkd.equals
def _(student, teacher, temperature):
    divergence = JensenShannon(0.5, normalized=False)
    return kd_loss(student, teacher, temperature, divergence=divergence, scaled=False).mean()


@case()
def gkd_forward(student, teacher, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, `beta=0`

    As `beta` approaches 0 the loss tends to 0; at 0 it is the KL divergence.
    """
    return GKDTrainer.generalized_jsd_loss(student, teacher, beta=0, temperature=temperature)


@gkd_forward.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean()


@case()
def gkd_reverse(student, teacher, temperature=4.0):
    """`GKDTrainer.generalized_jsd_loss`, `beta=1`"""
    return GKDTrainer.generalized_jsd_loss(student, teacher, beta=1, temperature=temperature)


@gkd_reverse.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, divergence="reverse_kl", scaled=False).mean()


@case(FLOAT32_DIGITS)
def distillation_trainer(student, teacher, temperature=4.0):
    """The loss of `DistillationTrainer`, its default `beta=1`

    Its gradient, too, shrinks as the temperature rises: multiply the loss or the learning
    rate.
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
