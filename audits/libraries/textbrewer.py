"""The library TextBrewer."""

import torch
from torch.distributions import Categorical

from audits.case import case
from audits.imports import without_init
from kd_notes.torch import kd_loss

without_init("textbrewer")
from textbrewer.losses import kd_ce_loss, kd_mse_loss  # noqa: E402

LIBRARY = "TextBrewer"
DISTRIBUTION = "textbrewer"
IN_SHORT = "To change: by default the gradient has no factor τ². Multiply `kd_loss_weight` by it."


@case()
def cross_entropy(student, teacher, temperature=4.0):
    """`kd_ce_loss`

    Multiply `kd_loss_weight` by the square of the temperature to keep the size of the
    gradient.
    """
    return kd_ce_loss(student, teacher, temperature)


@cross_entropy.equals
def _(student, teacher, temperature):
    kd = kd_loss(student, teacher, temperature, scaled=False)
    return (kd + Categorical(logits=teacher / temperature).entropy()).mean()


@case()
def squared_error(student, teacher, temperature=4.0):
    """`kd_mse_loss`

    The temperature is a factor of the learning rate and nothing else.
    """
    return kd_mse_loss(student, teacher, temperature)


@squared_error.equals
def _(student, teacher, temperature):
    shift = (student - teacher).mean(-1)  # which no softmax sees
    return (2 * kd_loss(student, teacher, torch.inf) + shift**2).mean() / temperature**2
