"""The library KD-Lib."""

import torch

from audits.case import case
from audits.imports import absent, without_init

absent("torch.utils.tensorboard")
without_init("KD_Lib", "KD_Lib.KD", "KD_Lib.KD.vision")
from KD_Lib.KD.vision.vanilla.vanilla_kd import VanillaKD  # noqa: E402

LIBRARY = "KD-Lib"
DISTRIBUTION = "KD-Lib"
NO_DATA = (None, None, None, None)


@case()
def by_default(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`VanillaKD`, its default `loss_fn=MSELoss()`

    This is the squared error of the probabilities, divided by the number of classes. At high
    temperatures it tends to 2/K² times the loss of the KL divergence.
    """
    network = torch.nn.Identity()
    distiller = VanillaKD(network, network, *NO_DATA, temp=temperature, distil_weight=alpha)
    return distiller.calculate_kd_loss(student, teacher, labels)


@case()
def kl_div(student, teacher, labels, temperature=4.0, alpha=0.3):
    """`VanillaKD`, `loss_fn=KLDivLoss("batchmean")`

    `KLDivLoss` expects a logarithm and is given probabilities. Pass a module that takes the
    teacher's probabilities p and then the student's q, and returns `(p * (p /
    q).log()).sum(-1).mean()`.
    """
    network, loss = torch.nn.Identity(), torch.nn.KLDivLoss(reduction="batchmean")
    distiller = VanillaKD(network, network, *NO_DATA, loss, temperature, alpha)
    return distiller.calculate_kd_loss(student, teacher, labels)
