"""The library axolotl, whose teacher comes as log-probabilities of its best classes: here all."""

import torch

from audits.case import FLOAT32_DIGITS, case
from audits.imports import without_init
from kd_notes.torch import kd_loss

without_init("axolotl", "axolotl.integrations", "axolotl.integrations.kd")
from axolotl.integrations.kd.kernels.liger import LigerFusedLinearKLTopKLogprobLoss  # noqa: E402
from axolotl.integrations.kd.topk_logprob import forward_kl  # noqa: E402

LIBRARY = "axolotl"
DISTRIBUTION = "axolotl"
IN_SHORT = "OK at τ = 1, as in its README; at another, only the value has the factor τ²."


def as_top_k(teacher, temperature):
    """Return the classes, their log-probabilities and a mask, for a batch of one sequence."""
    log_p = torch.log_softmax(teacher / temperature, dim=-1)[None]
    return torch.arange(teacher.shape[-1]).expand(log_p.shape), log_p, torch.ones(log_p.shape)


@case(FLOAT32_DIGITS)
def kernel(student, teacher, temperature=4.0):
    """`LigerFusedLinearKLTopKLogprobLoss`, `beta=0`, the soft part

    The square of the temperature multiplies the value and not the gradient: at temperature 4
    the teacher's part is 16 times weaker than the printed loss says. `kd_alpha` is at most 1:
    lower `kd_ce_alpha` in relation to it, and raise the learning rate.
    """
    loss = LigerFusedLinearKLTopKLogprobLoss(0.0, 1.0, temperature, beta=0.0, compiled=False)
    head = torch.eye(student.shape[-1], dtype=student.dtype)
    labels = torch.zeros((1, len(student)), dtype=torch.long)
    return loss(head, student[None], *as_top_k(teacher, temperature), labels)


@kernel.equals
def _(student, teacher, temperature):
    kd = kd_loss(student, teacher, temperature, scaled=False).sum()
    return kd + (temperature**2 - 1) * kd.detach()  # the factor is on the value alone


@case(FLOAT32_DIGITS)
def plain(student, teacher, temperature=4.0):
    """`topk_logprob.forward_kl.loss`

    The mean runs over the teacher's k classes too, here all of them: multiply by k, and by the
    square of the temperature.
    """
    top_k = as_top_k(teacher, temperature)
    return forward_kl.loss(student[None], *top_k, kd_temperature=temperature)


@plain.equals
def _(student, teacher, temperature):
    return kd_loss(student, teacher, temperature, scaled=False).mean() / student.shape[-1]
