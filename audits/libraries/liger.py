"""Liger, whose distillation losses are plain PyTorch.

Given a head that leaves them as they are, its hidden states are logits.
"""

import torch
from liger_kernel.chunked_loss import LigerFusedLinearJSDLoss

from audits.case import FLOAT32_DIGITS, case
from kd_notes.divergences import JensenShannon
from kd_notes.torch import kd_loss

LIBRARY = "Liger"
DISTRIBUTION = "liger-kernel"
IN_SHORT = "OK at τ = 1, the default. There is no factor τ², which a larger temperature needs."


@case(FLOAT32_DIGITS)
def jsd(student, teacher, labels, temperature=4.0):
    """`LigerFusedLinearJSDLoss`, its default `beta=0.5`, the soft part

    Multiply `weight_soft_loss` by the square of the temperature to keep the size of the
    gradient.
    """
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    loss = LigerFusedLinearJSDLoss(0.0, 1.0, temperature=temperature, compiled=False)
    return loss(student, head, teacher, head, labels)


@jsd.equals
def _(student, teacher, labels, temperature):
    divergence = JensenShannon(0.5, normalized=False)
    return kd_loss(student, teacher, temperature, divergence=divergence, scaled=False).mean()


@case(FLOAT32_DIGITS)
def jsd_with_labels(student, teacher, labels, temperature=4.0):
    """`LigerFusedLinearJSDLoss`, its default weights"""
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    loss = LigerFusedLinearJSDLoss(temperature=temperature, compiled=False)
    return loss(student, head, teacher, head, labels)


@jsd_with_labels.equals
def _(student, teacher, labels, temperature):
    divergence = JensenShannon(0.5, normalized=False)
    soft = kd_loss(student, teacher, temperature, divergence=divergence, scaled=False).mean()
    return 0.5 * torch.nn.functional.cross_entropy(student, labels) + 0.5 * soft
